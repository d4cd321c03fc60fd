"""The journal of a run: what goes to the disk first, and what a process whose run has ended can still do."""

import os
from pathlib import Path

import pytest

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.journal import Journal, discard, end_runs, recover, start_run
from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import RESULTS_FILE, Result
from showface.runtime.batch.run import complete_folder, open_log
from showface.runtime.errors import DiskFullError, InputError, UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.files import append_whole
from showface.runtime.inpainter import Inpainter

DONE = Result("a.png", "a.png", "done", key="1")


@pytest.fixture
def removals(tmp_path, monkeypatch):
    """Return a list that says, of each journal that is removed, whether all lines of the log are on the disk."""
    synced, seen = {}, []
    fsync, unlink = os.fsync, Path.unlink

    def record(number):
        fsync(number)
        synced[os.fstat(number).st_ino] = os.fstat(number).st_size

    def check(path, missing_ok=False):
        if path.suffix == ".journal":
            log = (tmp_path / RESULTS_FILE).stat()
            seen.append(log.st_size > 0 and synced.get(log.st_ino) == log.st_size)
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "unlink", check)
    return seen


def test_what_a_killed_run_owed_is_on_the_disk_before_its_journal_goes(tmp_path, removals):
    Journal(tmp_path, start_run(tmp_path)).publish(tmp_path / "a.png", b"bytes", DONE, replace=False)
    open_log(tmp_path / RESULTS_FILE).close()
    assert removals == [True]
    assert not (tmp_path / ".showface").exists()


def test_the_lines_of_a_run_are_on_the_disk_before_its_journal_goes(tmp_path, face_folder, narrow_bundle, removals):
    images, masks = face_folder
    options = Options(MaskSource("file", masks))
    jobs = plan_items(images / "a.png", tmp_path, masks)
    list(complete_folder(jobs, Inpainter.from_bundle(narrow_bundle, "cpu", 1), options, tmp_path / RESULTS_FILE))
    assert removals == [True]


def test_a_process_whose_run_has_ended_publishes_nothing(tmp_path):
    stale = Journal(tmp_path, start_run(tmp_path))
    stale.publish(tmp_path / "a.png", b"bytes", DONE, replace=False)
    end_runs(tmp_path)
    with pytest.raises(InputError, match="another run has taken it over"):
        stale.publish(tmp_path / "b.png", b"bytes", Result("b.png", "b.png", "done"), replace=False)
    assert list(recover(tmp_path)) == [DONE]
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_rename_that_comes_too_late_fails(tmp_path, monkeypatch):
    stale = Journal(tmp_path, start_run(tmp_path))
    real = os.replace

    def late(*paths):
        end_runs(tmp_path)
        real(*paths)

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(InputError, match="No such file"):
        stale.publish(tmp_path / "a.png", b"bytes", DONE, replace=False)
    assert list(recover(tmp_path)) == []


def test_a_file_that_appears_while_the_journal_is_written_is_kept(tmp_path, monkeypatch):
    journal = Journal(tmp_path, start_run(tmp_path), Path.write_bytes)
    real = os.fsync

    def appear(number):
        real(number)
        (tmp_path / "a.png").write_bytes(b"precious")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(InputError, match="appeared while the run went on"):
        journal.publish(tmp_path / "a.png", b"bytes", DONE, replace=False)
    assert (tmp_path / "a.png").read_bytes() == b"precious"


def test_a_work_folder_that_is_a_link_is_refused(tmp_path):
    outside, output = tmp_path / "outside", tmp_path / "out"
    (outside / "ended-1").mkdir(parents=True)
    (outside / "ended-1" / "mine.tmp").write_bytes(b"precious")
    output.mkdir()
    (output / ".showface").symlink_to(outside)
    with pytest.raises(UsageError, match=r"\.showface: is a link"):
        open_log(output / RESULTS_FILE)
    assert (outside / "ended-1" / "mine.tmp").read_bytes() == b"precious"


def test_links_inside_the_output_lead_nowhere(tmp_path):
    outside, output = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    for name in ("precious.tmp", "x.journal"):
        (outside / name).write_bytes(b"precious")
    (output / ".showface").mkdir(parents=True)
    for name in ("ended-1", "run-2"):
        (output / ".showface" / name).symlink_to(outside)
    open_log(output / RESULTS_FILE).close()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {
        "precious.tmp": b"precious", "x.journal": b"precious"
    }  # fmt: skip
    (output / RESULTS_FILE).unlink()
    (output / RESULTS_FILE).symlink_to(outside / "precious.tmp")
    with pytest.raises(UsageError, match=r"results\.jsonl: is a link"):
        open_log(output / RESULTS_FILE)
    assert (outside / "precious.tmp").read_bytes() == b"precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_fills_while_the_journal_is_written_is_said_to_be_full(tmp_path):
    def append(_, line):
        with Path("/dev/full").open("ab", buffering=0) as full:
            append_whole(full, line)

    journal = Journal(tmp_path, start_run(tmp_path), append=append)
    with pytest.raises(DiskFullError):
        journal.publish(tmp_path / "a.png", b"bytes", DONE, replace=False)
    journal.close(keep=True)
    assert not (tmp_path / "a.png").exists()
