"""Shared fixtures of training: a tree of small faces, a small config, and trained stages to start from."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from showface.training.ablation import EvaluationSet
from showface.training.config import (
    AugmentConfig,
    CoarseConfig,
    LayoutConfig,
    MaskConfig,
    MemoryConfig,
    NetworkConfig,
    OptimizerConfig,
    ParserConfig,
    PhaseConfig,
    ReconstructionConfig,
    RefinerConfig,
    SourceConfig,
    TrainConfig,
)
from showface.training.loop import make_fabric, train
from showface.training.pairs import BINS

SIZE = 64
NETWORK = NetworkConfig(
    SIZE,
    CoarseConfig((8, 8, 8), 8, LayoutConfig((8, 8), 8)),
    ParserConfig(8),
    MemoryConfig(channels=8, slots=4, encoder_width=8),
    refiner=RefinerConfig((8, 8, 8), (8, 8, 8), (1, 2), 8),
)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A tree of four faces with labels and one bin of masks."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("images", "labels", "masks/train/20-30"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    for i in range(4):
        labels = rng.integers(0, 19, (4, 4), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
        cv2.imwrite(str(root / f"images/{i}.png"), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        cv2.imwrite(str(root / f"labels/{i}.png"), labels)
        cv2.imwrite(str(root / f"masks/train/20-30/{i}.png"), np.roll(mask, 4 * i, axis=0))
    return root


@pytest.fixture(scope="session")
def config():
    """Return a function that builds a small config; keywords change it."""

    def make(steps=4, **changes):
        base = TrainConfig(
            {"a": SourceConfig("images", 1.0, "labels")},
            {"half": PhaseConfig(1, 2, 64, crop=32), "full": PhaseConfig(steps - 1, 2, SIZE)},
            masks=MaskConfig("masks/train"),
            precision="fp32",
            augment=AugmentConfig(5.0, 0.1, 0.1, 0.1, 0.5),
            optimizer=OptimizerConfig(1e-2, warmup_steps=2, clip_norm=1.0),
            reconstruction=ReconstructionConfig(8, 8),
            network=NETWORK,
        )
        return replace(base, **changes)

    return make


@pytest.fixture(scope="session")
def stages(data, config, tmp_path_factory):
    """An output folder with a trained coarse network, parser and reconstruction network."""
    root = tmp_path_factory.mktemp("runs")
    for stage in ("coarse", "parser", "reconstruction"):
        train(stage, config(2), data, root / stage, False, make_fabric("cpu", 1, "fp32"))
    return root


@pytest.fixture(scope="session")
def evaluation_set(tmp_path_factory):
    """Two faces, and a mask a ratio bin."""
    root, rng = tmp_path_factory.mktemp("test"), np.random.default_rng(0)
    (root / "images").mkdir()
    for i in range(2):
        cv2.imwrite(str(root / f"images/{i}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    for k, name in enumerate(BINS):
        (root / "masks" / name).mkdir(parents=True)
        mask = np.zeros((256, 256), np.uint8)
        mask[: int(256 * (0.05 + 0.1 * k))] = 255
        cv2.imwrite(str(root / "masks" / name / "0.png"), mask)
    return EvaluationSet(root / "images", root / "masks")
