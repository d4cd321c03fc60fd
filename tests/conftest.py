"""Shared fixtures: faces with holes, and folders of them; those that need PyTorch come from ``fixtures/``.

The tests of ``runtime`` are collected, and run as far as they need no model, where PyTorch is not installed.
"""

import os
import signal
import subprocess
from importlib.util import find_spec

if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a core of its own, and so have those that it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from showface.runtime.faces.tensors import prepare

TORCH = all(find_spec(name) is not None for name in ("torch", "onnx"))
pytest_plugins = []
pytest_plugins += ["fixtures.models", "fixtures.occluder", "fixtures.training"] if TORCH else ["fixtures.without_torch"]
collect_ignore = [] if TORCH else ["training", "evaluation", "export", "calibration"]
NEED_ONNX = ["backends/tensorrt/test_debug.py", "backends/test_cuda_provider.py", "batch/test_found_masks.py"]
collect_ignore += [] if TORCH else [f"runtime/{path}" for path in NEED_ONNX]

SIZE = 256  # of the networks


def pytest_collection_modifyitems(items):
    """Begin with training, which needs no bundle: of two processes, one makes the bundle while the other trains."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/training/"))


def synthetic_face(seed):
    """Return an ellipse with eyes and a mouth under seeded noise, (256, 256, 3) uint8."""
    random = np.random.default_rng(seed)
    canvas = np.full((SIZE, SIZE, 3), 90, np.uint8)
    cv2.ellipse(canvas, (128, 128), (80, 105), 0, 0, 360, (205, 165, 140), -1)
    for x in (98, 158):
        cv2.circle(canvas, (x, 110), 10, (50, 40, 40), -1)
    cv2.ellipse(canvas, (128, 180), (30, 10), 0, 0, 360, (170, 70, 80), -1)
    noise = random.integers(-12, 13, canvas.shape)
    return (canvas.astype(np.int64) + noise).clip(0, 255).astype(np.uint8)


def block_hole(seed, side=SIZE):
    """Return a hole (side, side) bool: one seeded block and a few single pixels."""
    random = np.random.default_rng(seed)
    hole = random.random((side, side)) < 0.001
    top, left = random.integers(side // 8, side // 2, 2)
    hole[top : top + side // 4, left : left + side // 3] = True
    return hole


def three_faces():
    """Return two crops of a photograph and a synthetic face, each (256, 256, 3) uint8."""
    photograph = skimage.data.astronaut()
    crops = photograph[0:256, 96:352], photograph[40:240, 130:330]
    return [*(cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for crop in crops), synthetic_face(0)]


@pytest.fixture(scope="session")
def chain_inputs():
    """Return ``image`` [3, 3, 256, 256] and ``mask`` [3, 1, 256, 256] of the three faces."""
    prepared = [prepare(face, block_hole(seed), SIZE, "face") for seed, face in enumerate(three_faces())]
    return np.stack([image for image, _ in prepared]), np.stack([mask for _, mask in prepared])


@pytest.fixture(scope="session")
def faces():
    """Return the three faces with their holes, as the inpainter takes them."""
    return [(face, block_hole(seed)) for seed, face in enumerate(three_faces())]


@pytest.fixture
def showface(capsys):
    """Return a function that runs the command line in this process and returns what one of its own would leave."""
    from showface.cli import main

    def run(*arguments):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            main(["--threads", "1", *map(str, arguments)])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.fixture
def face_folder(tmp_path, faces):
    """Return a folder of three faces (PNG and JPEG) and a folder of PNG masks of the same stems."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name, (face, hole) in zip(("a.png", "b.jpg", "c.png"), faces, strict=True):
        Image.fromarray(face).save(images / name)
        Image.fromarray(hole.astype(np.uint8) * 255).save(masks / f"{name[0]}.png")
    return images, masks
