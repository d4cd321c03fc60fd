"""A tree of plain faces and of cut-outs, and a run on them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from showface.training.config import (
    FeedConfig,
    NetworkConfig,
    PhaseConfig,
    SourceConfig,
    TrainConfig,
    ValidationConfig,
)
from showface.training.occluder.config import CutoutConfig, OcclusionConfig

KINDS = ("hand", "mask", "sunglasses", "object", "hat")
SIZE = 64


def write_cutout(path, colour=(10, 200, 30), size=(40, 60)):
    """Write a filled ellipse; what is transparent has a loud colour that must never show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgba = np.zeros((*size, 4), np.uint8)
    rgba[..., :3] = (255, 0, 255)
    alpha = np.zeros(size, np.uint8)
    cv2.ellipse(alpha, (size[1] // 2, size[0] // 2), (size[1] // 2 - 2, size[0] // 2 - 2), 0, 0, 360, 255, -1)
    rgba[alpha > 0, :3] = colour[::-1]
    rgba[..., 3] = alpha
    assert cv2.imwrite(str(path), rgba)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Twenty faces of one tone each, half of them labelled, and a folder of cut-outs for each kind."""
    root = tmp_path_factory.mktemp("occlusions")
    for i in range(20):
        folder = root / ("plain" if i < 10 else "labelled/images")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{i:03d}.png"), np.full((SIZE, SIZE, 3), 90 + 4 * i, np.uint8))
        if i >= 10:
            (root / "labelled/labels").mkdir(parents=True, exist_ok=True)
            labels = np.ones((SIZE, SIZE), np.uint8)
            labels[28:34, 18:46] = 3  # eyeglasses
            labels[44:] = 18  # cloth
            cv2.imwrite(str(root / f"labelled/labels/{i:03d}.png"), labels)
    for kind in KINDS:
        for i in range(12):
            write_cutout(root / f"cutouts/{kind}/{kind}{i:02d}.png", (20 * i, 200 - 10 * i, 30))
    for i in range(4):
        (root / "textures").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"textures/t{i}.png"), np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8))
    (root / "left_out.txt").write_text("001\n002\n")
    return root


@pytest.fixture(scope="session")
def run():
    """Return a function that builds a run's config; keywords change its table ``occlusion`` or the whole."""

    def make(feed="memory", workers=0, steps=4, network=SIZE, **occlusion):
        cutouts = {k: CutoutConfig(f"cutouts/{k}", k) for k in KINDS}
        base = OcclusionConfig(cutouts, "textures", {"plain": "left_out.txt"}, samples=12, holdout_every=4)
        return TrainConfig(
            {"plain": SourceConfig("plain"), "labelled": SourceConfig("labelled/images", 2.0, "labelled/labels")},
            {"all": PhaseConfig(steps, 2, network)},
            feed=FeedConfig(feed, workers),
            precision="fp32",
            validation=ValidationConfig(5, 6, 2),
            occlusion=replace(base, **occlusion),
            network=NetworkConfig(network),
        )

    return make
