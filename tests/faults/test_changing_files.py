"""Files that change while they are read: each output is that of one whole picture, or there is none."""

import io
import os
import threading

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import RESULTS_FILE
from showface.runtime.batch.run import complete_folder
from showface.runtime.errors import ShowfaceError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.inpainter import Inpainter
from showface.runtime.untrusted import read
from showface.runtime.untrusted.read import file_digest, read_file, read_lines

COUNT = 8


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@pytest.fixture
def when_opened(monkeypatch):
    """Return a function that says what becomes of a file between being opened and being read."""

    def schedule(action):
        real = os.fdopen

        def opened(number, *arguments, **options):
            action()
            return real(number, *arguments, **options)

        monkeypatch.setattr(read.os, "fdopen", opened)

    return schedule


@pytest.mark.parametrize("kind", ["removed", "replaced"])
def test_a_name_that_changes_hands_leaves_the_opened_file(tmp_path, when_opened, kind):
    path = tmp_path / "a.bin"
    path.write_bytes(b"whole" * 1000)
    (tmp_path / "b.bin").write_bytes(b"other")
    when_opened(path.unlink if kind == "removed" else lambda: os.replace(tmp_path / "b.bin", path))
    assert read_file(path) == b"whole" * 1000


@pytest.mark.parametrize("kind", ["grows", "shrinks", "is emptied"])
def test_a_file_that_changes_its_length_is_refused(tmp_path, monkeypatch, kind):
    """Between asking for its length and reading it: what is read would be a piece, or half of each."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"whole" * 1000)
    real, asked = os.fstat, []

    def measured(number):
        found = real(number)
        asked.append(number)
        if len(asked) == 2:  # the first time it is asked whether it is a regular file
            with path.open("ab") as file:
                file.write(b"more") if kind == "grows" else file.truncate({"shrinks": 2500, "is emptied": 0}[kind])
        return found

    monkeypatch.setattr(read.os, "fstat", measured)
    with pytest.raises(ShowfaceError, match=r"a\.bin: changed while it was read"):
        read_file(path)


def test_logs_and_digests_of_a_growing_file_end(tmp_path):
    path, stop = tmp_path / "a.log", threading.Event()
    path.write_bytes(b"line\n" * 1000)

    def grow():
        with path.open("ab") as file:
            while not stop.is_set():
                file.write(b"line\n")
                stop.wait(0.002)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        assert sum(1 for _ in read_lines(path)) >= 1000
        assert len(file_digest(path)) == 64
    finally:
        stop.set()
        writer.join()


def test_each_output_is_of_one_whole_picture(tmp_path, narrow_bundle, faces):
    """A writer overwrites every input in place, again and again, with one of two pictures while the folder runs."""
    inpainter = Inpainter.from_bundle(narrow_bundle, "cpu", 1)
    versions = [png(np.roll(faces[0][0], shift, axis=1)) for shift in (0, 40)]
    assert len(versions[0]) == len(versions[1])  # the length does not give it away
    (tmp_path / "in").mkdir()
    names = [f"{k}.png" for k in range(COUNT)]
    mask = tmp_path / "mask.png"
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(mask)
    options = Options(MaskSource("file", mask))

    def run(out):
        items = plan_items(tmp_path / "in", out, None, None)
        return {r.input: r for r in complete_folder(items, inpainter, options, out / RESULTS_FILE)}

    wanted = []
    for data in versions:
        (tmp_path / "in" / "0.png").write_bytes(data)
        run(tmp_path / f"alone-{len(wanted)}")
        wanted.append((tmp_path / f"alone-{len(wanted)}" / "0.png").read_bytes())
    for name in names:
        (tmp_path / "in" / name).write_bytes(versions[0])
    stop = threading.Event()

    def rewrite():
        turn = 0
        while not stop.is_set():
            turn += 1
            for name in names:
                with (tmp_path / "in" / name).open("r+b") as file:
                    data = versions[turn % 2]
                    for start in range(0, len(data), 50_000):
                        file.write(data[start : start + 50_000])
            stop.wait(0.001)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        results = run(tmp_path / "out")
    finally:
        stop.set()
        writer.join()
    assert set(results) == set(names)
    for name, result in results.items():
        path = tmp_path / "out" / name
        if result.status == "failed":  # a mixture of both is damaged: the checksums of the file say so
            assert name in result.error
            assert not path.exists()
        else:
            assert path.read_bytes() in wanted
    for name in names:
        (tmp_path / "in" / name).write_bytes(versions[1])
    assert {result.status for result in run(tmp_path / "out").values()} <= {"done", "skipped"}
    assert {(tmp_path / "out" / name).read_bytes() for name in names} == {wanted[1]}
