"""``rename`` and ``fsync`` that fail: what stood there stays, nothing is left behind, and the next run mends it."""

import contextlib
import errno
import os

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import RESULTS_FILE
from showface.runtime.batch.run import complete_folder
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.device_kit import write_kit
from showface.runtime.errors import DiskFullError, ShowfaceError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.files import atomic_file, atomic_folder, sealed, write_file, write_flushed, write_side
from showface.runtime.inpainter import Inpainter

CALLS = ["replace", "fsync"]
FULL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
ERRORS = [errno.EIO, errno.EACCES, errno.EXDEV, errno.EBUSY, *FULL]


@pytest.fixture
def fails(monkeypatch):
    """Return a function that lets one call of the operating system fail from its ``nth`` time on, or ``times`` times.

    It returns how often the call has failed, in a list. Its ``mend`` ends all failures.
    """
    real = {name: getattr(os, name) for name in CALLS}

    def start(name, number, nth=1, times=10**9):
        calls, failed = [], []

        def failing(*arguments, **options):
            calls.append(arguments)
            if len(calls) < nth or len(failed) == times:
                return real[name](*arguments, **options)
            failed.append(arguments)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, name, failing)
        return failed

    start.mend = lambda: [monkeypatch.setattr(os, name, real[name]) for name in CALLS]
    return start


def two_in_a_folder(folder):
    with atomic_folder(folder / "x") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "one").write_bytes(b"1")
        (temporary / "two").write_bytes(b"2")


WRITERS = {
    "a file": lambda folder: write_file(folder / "x", b"new"),
    "a flushed file": lambda folder: write_flushed(folder / "x", b"new"),
    "a side output": lambda folder: write_side(folder / "x", sealed(b"new"), False),
    "a folder": two_in_a_folder,
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("name", "call"),
    [(name, call) for name in WRITERS for call in CALLS if (name, call) != ("a flushed file", "replace")],
)
def test_a_failing_call_leaves_nothing_behind(tmp_path, fails, name, call, number):
    failed = fails(call, number)
    with pytest.raises((OSError, ShowfaceError)):
        WRITERS[name](tmp_path)
    assert failed
    assert os.listdir(tmp_path) == []
    fails.mend()
    WRITERS[name](tmp_path)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("call", CALLS)
def test_what_stood_there_stays(tmp_path, fails, call):
    (tmp_path / "x").write_bytes(b"old")
    fails(call, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), atomic_file(tmp_path / "x") as temporary:
        temporary.write_bytes(b"new")
    with pytest.raises(ShowfaceError, match=r"x: cannot be written: Input/output error"):
        write_side(tmp_path / "x", b"new", True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


@pytest.mark.parametrize("call", CALLS)
def test_a_kit_is_whole_or_not_there(tmp_path, fails, call):
    bundle, path = open_bundle(default_bundle()), tmp_path / "kit.zip"
    path.write_bytes(b"old")
    fails(call, errno.EIO)
    with pytest.raises(ShowfaceError, match="cannot be written: Input/output error"):
        write_kit(bundle, path, overwrite=True)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("kit.zip", b"old")]


@pytest.fixture(scope="module")
def run(narrow_bundle, faces, tmp_path_factory):
    """Return a function that completes three faces into a folder, and the files that this gives."""
    root, inpainter = tmp_path_factory.mktemp("calls"), Inpainter.from_bundle(narrow_bundle, "cpu", 1)
    (root / "in").mkdir()
    for k, (face, _) in enumerate(faces):
        Image.fromarray(face).save(root / "in" / f"{k}.png")
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(root / "mask.png")
    options = Options(MaskSource("file", root / "mask.png"))

    def complete(out):
        items = plan_items(root / "in", out, None, None)
        results = {}
        for result in complete_folder(items, inpainter, options, out / RESULTS_FILE):
            results[result.input] = result
        return results

    complete(root / "whole")
    return complete, pictures(root / "whole")


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
@pytest.mark.parametrize("call", CALLS)
def test_a_folder_run_goes_on_or_ends_and_loses_nothing(run, tmp_path, fails, call, number):
    """What one file brings about fails that file; a full disk, which fails all, ends the run."""
    complete, whole = run
    hit = fails(call, number, nth=2, times=1)
    if number in FULL:
        with pytest.raises(DiskFullError, match="make room and run the same again"):
            complete(tmp_path)
    else:
        failed = [result for result in complete(tmp_path).values() if result.status == "failed"]
        assert len(failed) == 1
        assert os.strerror(number) in failed[0].error
    assert len(hit) == 1
    assert all(whole[name] == data for name, data in pictures(tmp_path).items())
    fails.mend()
    assert {result.status for result in complete(tmp_path).values()} <= {"done", "skipped"}
    assert pictures(tmp_path) == whole
    assert sorted(os.listdir(tmp_path)) == [*sorted(whole), RESULTS_FILE]  # no journal and no temporary file


@pytest.mark.parametrize("call", CALLS)
def test_every_call_may_be_the_one_that_fails(run, tmp_path, fails, call):
    (complete, whole), hits = run, 0
    for nth in range(1, 9):
        out = tmp_path / str(nth)
        hit = fails(call, errno.EIO, nth=nth, times=1)
        with contextlib.suppress(ShowfaceError):  # where it is a call of the log
            complete(out)
        fails.mend()
        hits += len(hit)
        complete(out)
        assert pictures(out) == whole, nth
        assert sorted(os.listdir(out)) == [*sorted(whole), RESULTS_FILE], nth
    assert hits >= len(whole)
