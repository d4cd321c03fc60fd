"""``--mask-from alpha`` and ``color:#RRGGBB`` from the command line to the written file."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def inpaint(showface, narrow_bundle):
    """Return a function that completes a folder and returns the outcome and the lines by input."""

    def run(images, output, source):
        options = ("--mask-from", source, "--bundle", narrow_bundle, "--device", "cpu")
        result = showface("inpaint", images, output, *options)
        lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
        return result, {line["input"]: line for line in lines}

    return run


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_what_is_transparent_is_completed_and_made_opaque(images, tmp_path, faces, inpaint):
    face, hole = faces[0]
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([face, alpha])).save(images / "a.png")
    Image.fromarray(np.dstack([face, alpha])).save(images / "b.webp", lossless=True, exact=True)
    Image.fromarray(face).save(images / "solid.png")
    result, lines = inpaint(images, tmp_path / "out", "alpha")
    assert result.returncode == 1, result.stderr
    assert "solid.png: has no alpha channel" in lines["solid.png"]["error"]
    for name in ("a.png", "b.webp"):
        assert lines[name]["status"] == "done"
        assert lines[name]["hole_ratio"] == pytest.approx(hole.mean())
        written = np.asarray(Image.open(tmp_path / "out" / name).convert("RGBA"))  # WebP drops a full alpha
        np.testing.assert_array_equal(written[~hole], np.dstack([face, alpha])[~hole])
        assert (written[hole, 3] == 255).all()
        assert (written[hole, :3] != face[hole]).mean() > 0.9


def test_what_has_the_key_color_is_completed(images, tmp_path, faces, inpaint):
    key = (1, 254, 3)
    face, hole = faces[0]
    hole = np.zeros_like(hole)
    hole[61:141, 75:158] = True  # one block: single pixels do not survive JPEG
    painted = np.where(hole[..., None], np.asarray(key, np.uint8), face)
    Image.fromarray(painted).save(images / "a.png")
    Image.fromarray(painted).save(images / "b.jpg", quality=90)
    result, lines = inpaint(images, tmp_path / "out", "color:#01fe03")
    assert result.returncode == 0, result.stderr
    assert lines["a.png"]["hole_ratio"] == pytest.approx(hole.mean())
    written = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(written[~hole], face[~hole])
    assert (written[hole] != painted[hole]).mean() > 0.9
    grown = cv2.dilate(hole.astype(np.uint8), np.ones((13, 13), np.uint8))
    assert hole.mean() < lines["b.jpg"]["hole_ratio"] <= grown.mean()
    # The frame that chroma subsampling left is completed too, not kept.
    frame = (cv2.dilate(hole.astype(np.uint8), np.ones((5, 5), np.uint8)) == 1) & ~hole
    before, after = (np.asarray(Image.open(folder / "b.jpg")).astype(int) for folder in (images, tmp_path / "out"))
    assert (np.abs(after - before)[frame].max(axis=1) > 8).mean() > 0.9
