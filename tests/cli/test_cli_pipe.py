"""``showface inpaint - -`` and ``--watch`` as a shell starts them."""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from fixtures.occluder import cover
from PIL import Image

from showface.runtime import Inpainter
from showface.runtime.faces.found_masks import find_hole
from showface.runtime.faces.masks import mask_source

COMMAND = (sys.executable, "-m", "showface.cli", "--threads", "1", "inpaint")


@pytest.fixture
def pipe(narrow_bundle):
    """Return a function that sends bytes through the command."""

    def run(data, *options, bundle=narrow_bundle):
        command = [*COMMAND, *map(str, options), "--bundle", bundle, "--device", "cpu"]
        return subprocess.run(command, input=data, capture_output=True, timeout=300, check=False)

    return run


def test_a_picture_goes_through_a_pipe(pipe, face_folder, faces, narrow_bundle):
    images, masks = face_folder
    done = pipe((images / "a.png").read_bytes(), "-", "-", "--masks", masks / "a.png")
    assert done.returncode == 0, done.stderr
    face, hole = faces[0]
    completed = np.asarray(Image.open(io.BytesIO(done.stdout)))
    np.testing.assert_array_equal(completed, Inpainter.from_bundle(narrow_bundle, "cpu", 1).complete(face, hole))
    np.testing.assert_array_equal(completed[~hole], face[~hole])


def test_what_covers_a_face_is_found_in_a_pipe(pipe, faces, green_bundle):
    face, covered = cover(faces[0][0])
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "PNG")
    source = mask_source("occlusion", None, 6)
    inpainter = Inpainter.from_bundle(green_bundle, "cpu", 1)
    hole, note = find_hole(face, None, inpainter, source)
    assert hole[covered].all()
    done = pipe(buffer.getvalue(), "-", "-", "--mask-from", "occlusion", "--fail-on-uncertain", bundle=green_bundle)
    assert done.returncode == int(bool(note.doubts)), done.stderr
    completed = np.asarray(Image.open(io.BytesIO(done.stdout)))
    np.testing.assert_array_equal(completed, inpainter.complete(face, hole))
    options = ("-", "-", "--mask-from", "occlusion", "--fail-on-uncertain", "--max-hole", "0.01")
    done = pipe(buffer.getvalue(), *options, bundle=green_bundle)
    assert done.returncode == 1
    assert b"look at the picture: the hole would take" in done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), face)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("-", "out.png", "--mask-from", "alpha"), 2, "a pipe goes through: give - for both"),
        (("-", "-", "--masks", "."), 2, "has no name to find its mask by; give one mask file"),
        (("-", "-", "--mask-from", "alpha", "--align"), 2, "a pipe takes one aligned face: no --align"),
        (("-", "-", "--mask-from", "alpha"), 1, "image: not an image that showface reads"),
        (("in", "out", "--mask-from", "alpha", "--watch", "--cluster", "local"), 2, "does not go with --cluster"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_nothing_is_written(pipe, tmp_path, monkeypatch, options, code, sentence):
    monkeypatch.chdir(tmp_path)
    done = pipe(b"hello", *options)
    assert (done.returncode, done.stdout) == (code, b"")
    assert sentence in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_watch_ends_at_a_signal_with_everything_kept(face_folder, narrow_bundle, tmp_path):
    images, masks = face_folder
    later, output = tmp_path / "later.png", tmp_path / "out"
    os.rename(images / "c.png", later)
    command = [*COMMAND, images, output, "--masks", masks, "--watch", "--bundle", narrow_bundle, "--device", "cpu"]
    watch = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in watch.stderr:
            said.append(line)
            if len([line for line in said if ": done" in line]) == 2 and later.exists():
                os.rename(later, images / "c.png")
            if "c.png: done" in line:
                watch.send_signal(signal.SIGTERM)
        assert watch.wait(300) == 143
    finally:
        watch.kill()
        watch.wait(300)
    assert "stopped by SIGTERM after 3 of 3" in "".join(said)
    pictures = sorted(path.name for path in output.iterdir() if path.suffix in (".png", ".jpg"))
    assert pictures == ["a.png", "b.jpg", "c.png"]
    assert not [path for path in output.rglob("*") if path.suffix == ".tmp"]
