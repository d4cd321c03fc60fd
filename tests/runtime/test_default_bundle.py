"""The bundle that ships, end to end on the example faces, and what the README says about it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showface.evaluation.metrics import psnr
from showface.runtime.bundle import default_bundle
from showface.runtime.inpainter import Inpainter

REPOSITORY = Path(__file__).resolve().parents[2]
FACES, MASKS = (REPOSITORY / "examples" / name for name in ("faces", "masks"))
# PSNR in dB of each example face, completed by the bundle that ships, against the face itself; write them anew
# when the bundle is replaced, and replace it only for the better on the held-out faces of the model card.
QUALITY = {
    "astronaut.png": 28.59,
    "avatar-1.jpg": 28.74,
    "avatar-2.jpg": 33.53,
    "avatar-3.jpg": 29.68,
    "avatar-4.jpg": 28.48,
    "avatar-5.jpg": 20.34,
    "avatar-6.jpg": 31.49,
    "avatar-7.jpg": 23.90,
}


def execute(*arguments, **options):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """Complete the example faces once, as the README does."""
    output = tmp_path_factory.mktemp("default") / "out"
    arguments = ("inpaint", FACES, output, "--masks", MASKS, "--device", "cpu")
    result = execute("-m", "showface.cli", "--threads", "2", *arguments)
    assert result.returncode == 0, result.stderr
    return output


def test_every_example_has_its_line(completed):
    lines = [json.loads(line) for line in (completed / "results.jsonl").read_text().splitlines()]
    faces = sorted(path.name for path in FACES.iterdir())
    assert len(faces) >= 6
    assert all(line["input"] == line["output"] for line in lines)
    assert sorted(line["input"] for line in lines) == faces  # as they were finished, side by side
    assert sorted(path.name for path in completed.iterdir()) == sorted([*faces, "results.jsonl"])
    for line in lines:
        mask = np.asarray(Image.open(MASKS / f"{Path(line['input']).stem}.png"))
        assert line["hole_ratio"] == pytest.approx((mask > 127).mean())
        assert (line["status"], line["error"]) == ("done", None)
        assert line["seconds"] > 0


@pytest.mark.parametrize("face", sorted(FACES.iterdir()), ids=lambda path: path.name)
def test_examples_are_completed_inside_the_hole_only(completed, face):
    before, after = pixels_of(face).astype(int), pixels_of(completed / face.name).astype(int)
    hole = np.asarray(Image.open(MASKS / f"{face.stem}.png")) > 127
    if face.suffix == ".png":
        np.testing.assert_array_equal(after[~hole], before[~hole])
    else:  # compressed again, at quality 95
        assert np.abs(after - before)[~hole].mean() < 1.5
    changed = np.abs(after - before)[hole]
    assert (changed.max(axis=1) > 2).mean() > 0.5
    # A completed face resembles the face: a hole that is left black or filled with noise would not.
    assert 2 < changed.mean() < 45
    assert changed.mean() < np.abs(before[hole] - 127).mean()


def test_quality_on_the_examples_is_kept():
    inpainter = Inpainter.from_bundle(device="cpu", threads=2)
    faces = {path.name: pixels_of(path) for path in FACES.iterdir()}
    holes = {name: np.asarray(Image.open(MASKS / f"{Path(name).stem}.png")) > 127 for name in faces}
    found = {name: psnr(inpainter.complete(face, holes[name]), face) for name, face in faces.items()}
    assert found == {name: pytest.approx(value, abs=0.1) for name, value in QUALITY.items()}


def test_the_terms_of_the_weights_lie_beside_them():
    for folder in (default_bundle(), REPOSITORY / "training/checkpoints"):
        assert (folder / "LICENSE-weights").read_text() == (REPOSITORY / "LICENSE-weights").read_text()


def test_the_python_example_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL | re.M)
    assert len(blocks) == 1
    shutil.copy(FACES / "astronaut.png", tmp_path / "face.png")
    shutil.copy(MASKS / "astronaut.png", tmp_path / "mask.png")
    result = execute("-c", blocks[0], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    hole = np.asarray(Image.open(MASKS / "astronaut.png")) > 127
    before, after = pixels_of(tmp_path / "face.png"), pixels_of(tmp_path / "completed.png")
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).mean() > 0.5
