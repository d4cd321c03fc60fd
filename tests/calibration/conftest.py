"""Fixtures of the calibration's tests: a recording of the narrow bundle, and folders of faces and masks."""

from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image

from showface.calibration.placement import default_float, quantizable
from showface.calibration.planning.candidates import stage_ranges
from showface.calibration.quantize import quantize
from showface.calibration.recording import record
from showface.calibration.rewrites.float_graph import float_graph
from showface.calibration.samples import choose_samples
from showface.calibration.settings import Calibrator, Target
from showface.runtime.bundle import open_bundle

SIDE = 64  # of the files; they are resized to the networks' 256


def small_face(seed):
    """Return a drawn face under seeded noise, (64, 64, 3) uint8."""
    random = np.random.default_rng(seed)
    canvas = np.full((SIDE, SIDE, 3), int(random.integers(40, 200)), np.uint8)
    skin = tuple(int(value) for value in random.integers(90, 230, 3))
    cv2.ellipse(canvas, (32, 32), (20, 26), 0, 0, 360, skin, -1)
    for x in (24, 40):
        cv2.circle(canvas, (x, 27), 3, (40, 30, 30), -1)
    return (canvas + random.integers(-10, 11, canvas.shape)).clip(0, 255).astype(np.uint8)


def write_folders(root, count, hole=True):
    """Write ``count`` faces and masks of the same stems; their holes take 10, 30 and 50 % in turn."""
    images, masks = root / "images", root / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for k in range(count):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if hole:
            mask[8 : 8 + (6, 19, 32)[k % 3]] = 255
        Image.fromarray(small_face(k)).save(images / f"{k:02d}.png")
        Image.fromarray(mask).save(masks / f"{k:02d}.png")
    return images, masks


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("faces"), 12)


@pytest.fixture(scope="session")
def samples(folders):
    return choose_samples(*folders, faces=9, checked=3)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory, narrow_bundle, samples):
    """Return the recording of nine faces, of the narrow bundle."""
    folder = tmp_path_factory.mktemp("recording")
    return record(folder, open_bundle(narrow_bundle), samples.calibration, samples.digest(), 1)


@pytest.fixture(scope="session")
def three(recorded):
    """Return three of the recorded faces, one a bucket: enough for ranges that hold for more than one face."""
    chosen = [face for k, face in enumerate(recorded) if k % 3 == k // 3]
    assert len({face.face.bucket for face in chosen}) == len(chosen) == 3
    return chosen


@pytest.fixture(scope="session")
def float_graphs(narrow_bundle):
    """Return the float graph of each stage of the narrow bundle, for each target."""
    bundle = open_bundle(narrow_bundle)
    stages = bundle.manifest.stages
    return {target: {s.name: float_graph(bundle.model(s), s.name, target) for s in stages} for target in Target}


@pytest.fixture(scope="session")
def graphs(float_graphs):
    """Return the float graph of each stage, for the CPU."""
    return float_graphs[Target.CPU]


@pytest.fixture(scope="session")
def made(float_graphs, three):
    """Return a function that gives the default Q/DQ graph of a stage for a target, and its ranges; cached."""

    @cache
    def make(stage, target):
        graph = float_graphs[target][stage.name]
        kept = default_float(graph, stage.name, target)
        groups = [group for group in quantizable(graph, stage.name, target) if group not in kept]
        ranges = stage_ranges(graph, stage, three, target, Calibrator.MINMAX, 1)[str(Calibrator.MINMAX)]
        return quantize(graph, stage.name, target, groups, ranges), ranges

    return make
