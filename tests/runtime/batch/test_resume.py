"""A run that is continued reads what may have changed, and nothing else."""

import json
import os
from collections import Counter
from dataclasses import replace

import pytest

from showface.runtime.batch import read_input, results_log
from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.run import complete_folder
from showface.runtime.faces.masks import MaskSource
from showface.runtime.inpainter import Inpainter


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


@pytest.fixture
def run(inpainter, face_folder, tmp_path, monkeypatch):
    """Return a function that completes the folder, and returns the statuses and what was read, by name."""
    images, masks = face_folder
    monkeypatch.setattr(results_log, "SETTLED", 0.0)  # the files are a moment old
    read = Counter()

    def counted(path):
        read[path.name] += 1
        return original(path)

    original = read_input.read_file
    monkeypatch.setattr(read_input, "read_file", counted)

    def start(**changes):
        read.clear()
        options = replace(Options(MaskSource("file", masks)), **changes)
        items, log = plan_items(images, tmp_path / "out", masks), tmp_path / "out" / "results.jsonl"
        results = complete_folder(items, inpainter, options, log)
        return {result.input: result.status for result in results}, dict(read)

    return start


DONE, SKIPPED = (dict.fromkeys(("a.png", "b.jpg", "c.png"), status) for status in ("done", "skipped"))
ALL = {"a.png": 2, "b.jpg": 1, "b.png": 1, "c.png": 2}


def test_what_cannot_have_changed_is_not_read(run):
    assert run() == (DONE, ALL)
    assert run() == (SKIPPED, {})
    assert run() == (SKIPPED, {})  # the lines of what was skipped carry the stamps on
    assert run(verify=True) == (SKIPPED, ALL)


def test_a_file_that_was_only_touched_is_read_once(run, face_folder):
    run()
    os.utime(face_folder[0] / "a.png")
    assert run() == (SKIPPED, {"a.png": 2})
    assert run() == (SKIPPED, {})


def test_other_bytes_of_the_same_size_and_time_are_noticed(run, face_folder):
    run()
    image = face_folder[0] / "b.jpg"
    status = image.stat()
    data = bytearray(image.read_bytes())
    data[-200] ^= 1
    image.write_bytes(data)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == status.st_size
    assert image.stat().st_mtime_ns == status.st_mtime_ns
    statuses, read = run()
    assert read == {"b.jpg": 1, "b.png": 1}
    assert statuses["b.jpg"] == "done"


def test_a_changed_mask_and_other_options_are_noticed(run, face_folder):
    run()
    mask = face_folder[1] / "c.png"
    mask.write_bytes((face_folder[1] / "a.png").read_bytes())
    assert run() == ({**SKIPPED, "c.png": "done"}, {"c.png": 2})
    assert run(quality=80) == (DONE, ALL)


def test_a_removed_output_is_made_again(run, tmp_path):
    run()
    (tmp_path / "out" / "a.png").unlink()
    assert run() == ({**SKIPPED, "a.png": "done"}, {"a.png": 2})


def test_a_file_that_was_just_changed_has_no_stamp(run, tmp_path, monkeypatch):
    monkeypatch.setattr(results_log, "SETTLED", 3600.0)
    run()
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["stamp"] for line in lines] == [None] * 3
    assert run() == (SKIPPED, ALL)


def test_a_log_without_stamps_is_read_and_gets_them(run, tmp_path):
    run()
    log = tmp_path / "out" / "results.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line.pop("stamp") for line in lines)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run() == (SKIPPED, ALL)
    assert run() == (SKIPPED, {})


def test_outputs_of_a_killed_run_that_have_their_lines_are_not_read(run, tmp_path, monkeypatch):
    run()
    log, work = tmp_path / "out" / "results.jsonl", tmp_path / "out" / ".showface" / "run-0123"
    work.mkdir(parents=True)
    lines = [{**json.loads(line), "sha256": "0" * 64} for line in log.read_text().splitlines()]
    (work / "host-1.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
    opened = []
    monkeypatch.setattr("showface.runtime.batch.journal.file_digest", opened.append)
    assert run() == (SKIPPED, {})
    assert not opened
