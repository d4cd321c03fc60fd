"""Faces of which almost all is hidden: what the shipped bundle makes of them has the colours of a face."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showface.runtime.inpainter import Inpainter

FACES = Path(__file__).resolve().parents[2] / "examples" / "faces"
SIZE = 256
# Most saturated colour, brightest minus darkest channel, that skin and lips alone account for. Partial convolutions
# whose scale is not limited reach 151 around a lone corner.
SKIN = 105


def island(top, left, side):
    hole = np.ones((SIZE, SIZE), bool)
    hole[top : top + side, left : left + side] = False
    return hole


def border(hidden):
    """Return a hole in the middle that leaves a border on all sides; ``hidden`` is its share of the face."""
    side = round(SIZE * hidden**0.5)
    return ~island((SIZE - side) // 2, (SIZE - side) // 2, side)


def half(axis, end):
    hole = np.zeros((SIZE, SIZE), bool)
    np.moveaxis(hole, axis, 0)[slice(SIZE // 2, None) if end else slice(SIZE // 2)] = True
    return hole


HOLES = {
    "island": island(100, 100, 48),
    "corner": island(0, 0, 24),
    "left": half(1, False),
    "right": half(1, True),
    "top": half(0, False),
    "bottom": half(0, True),
    "border of 73 %": border(0.73),
    "border of 98 %": border(0.98),
}


def saturation(pixels):
    return np.percentile(pixels.max(axis=-1).astype(int) - pixels.min(axis=-1), 99.5)


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter.from_bundle(device="cpu", threads=1)


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_no_coloured_noise(inpainter, hole):
    for name in ("astronaut.png", "avatar-1.jpg", "avatar-5.jpg"):
        face = np.asarray(Image.open(FACES / name).convert("RGB").resize((SIZE, SIZE)))
        found = inpainter.complete(face, hole)
        assert saturation(found[hole]) <= max(saturation(face[~hole]), SKIN), name
        assert found[hole].std() > 10, f"{name}: a face is more than one colour"
