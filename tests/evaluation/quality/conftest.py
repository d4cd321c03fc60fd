"""Fixtures of the evaluation's tests: photographs with masks, and Telea's results and figures."""

import cv2
import numpy as np
import pytest
from fixtures.photographs import BINS, BUCKETS, COLOURS, IMAGES, MASKS, hole_rows

from showface.evaluation.quality.evaluate import EvaluationSet, evaluate
from showface.evaluation.quality.methods import BASELINES


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Nine smooth photographs of 300², and two masks a bin, each with its own number of hole rows."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(1)
    (folder / "images").mkdir()
    for k in range(IMAGES):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{k}.png"), cv2.resize(coarse, (300, 300), interpolation=cv2.INTER_CUBIC))
    for b, name in enumerate(BINS):
        (folder / "masks" / name).mkdir(parents=True)
        for i in range(MASKS):
            mask = np.zeros((256, 256), np.uint8)
            mask[100 : 100 + hole_rows(b, i)] = 255
            mask[: max(0, 100 + hole_rows(b, i) - 256)] = 255
            cv2.imwrite(str(folder / "masks" / name / f"{i}.png"), mask)
    return folder


@pytest.fixture
def copied(tree, tmp_path):
    """Return a function that copies the tree's masks and its first two images, to be spoilt."""
    for path in sorted(tree.glob("images/[01].png")) + sorted(tree.glob("masks/*/*.png")):
        target = tmp_path / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def completed(tree):
    """Telea's results by bucket and image, with the paths put together here: {bucket: [(truth, hole, result)]}."""
    found = {}
    for bucket, bins in BUCKETS.items():
        found[bucket] = []
        for k in range(IMAGES):
            mask = cv2.imread(str(tree / "masks" / bins[k % 2] / f"{k % MASKS}.png"), 0) > 127
            image = cv2.imread(str(tree / "images" / f"{k}.png"))
            truth = cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            found[bucket].append((truth, mask, cv2.inpaint(truth, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)))
    return found


@pytest.fixture(scope="session")
def telea_report(tree):
    return evaluate(BASELINES["telea"], EvaluationSet(tree / "images", tree / "masks"), COLOURS)
