"""Held-out faces: which of them are looked at, and the Fréchet distance that chooses the best checkpoint."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from showface.runtime.errors import UsageError
from showface.training.checkpoint import read_checkpoint
from showface.training.config import AugmentConfig, PerceptualConfig, PhaseConfig, ValidationConfig
from showface.training.data.augment import augment
from showface.training.loss_networks.vgg import VggFeatures
from showface.training.process import make_fabric
from showface.training.run.loop import Trainer

FABRIC = make_fabric("cpu", 1, "fp32")
FRECHET = ValidationConfig(holdout_every=2, faces=2, every=1, measure="frechet")


@pytest.fixture
def judged(data, tmp_path, config):
    """Return a run of the coarse network whose best checkpoint is that of the least Fréchet distance."""
    torch.manual_seed(3)
    vgg = VggFeatures("vgg16-caffe")
    for weight in vgg.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)  # a signal that is still there after 13 layers
    save_file(vgg.state_dict(), data / "vgg16.safetensors")
    run = config(3, validation=FRECHET, perceptual=PerceptualConfig("vgg16-caffe", "vgg16.safetensors"))
    return Trainer("coarse", run, data, tmp_path, FABRIC)


def test_the_frechet_distance_of_two_faces(judged):
    """Two rows span a line: the root of the product of two covariances u uᵀ has the trace |u · v|."""
    found = judged.validate()
    (batch,) = judged.validation.faces.every_face(8)
    assert len(batch.names) == 2
    seen = augment(batch, AugmentConfig(), PhaseConfig(1, 2, 64), (judged.config.seed, 0), FABRIC.device)  # mirrored
    image, mask = seen.image, seen.mask
    sides = []
    with torch.no_grad():
        for pictures in (judged.task.model.coarse.eval()(image, mask), image):
            rows = judged.task.features.blocks(pictures, 5)[-1].mean(dim=(2, 3)).double().numpy()
            sides.append((rows.mean(axis=0), (rows[0] - rows[1]) / 2**0.5))
    (mean_a, u), (mean_b, v) = sides
    expected = ((mean_a - mean_b) ** 2).sum() + u @ u + v @ v - 2 * abs(u @ v)
    assert expected > 0
    assert found["frechet"] == pytest.approx(expected, rel=1e-3)


def test_the_best_checkpoint_is_that_of_the_least_distance(judged):
    distances = []
    original = judged.validate
    judged.validate = lambda: distances.append(original()["frechet"]) or {"frechet": distances[-1], "total": -1.0}
    judged.run(Console(quiet=True))
    assert len(distances) == 3
    assert judged.best == min(distances)
    best = read_checkpoint(judged.output / "coarse-best.safetensors")
    assert best.training["coarse"]["steps"] == distances.index(min(distances)) + 1


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("coarse", {}, r"perceptual\.weights: .* the Fréchet distance need"),
        ("parser", {"perceptual": PerceptualConfig("vgg16-caffe", "x.safetensors")}, "parser completes no faces"),
        ("coarse", {"validation": replace(FRECHET, measure="loss", hole_ratio=(0.9, 1.0))}, "no mask has such a hole"),
        ("coarse", {"validation": replace(FRECHET, measure="loss", hole_ratio=(0.5, 0.5))}, "least and the greatest"),
    ],
)
def test_a_validation_that_cannot_be_is_refused(data, tmp_path, config, stage, changes, message):
    with pytest.raises(UsageError, match=message):
        Trainer(stage, config(3, **{"validation": FRECHET, **changes}), data, tmp_path, FABRIC)


def test_masks_are_those_of_the_hole_ratio(data, tmp_path, config):
    """The four masks of the tree have a quarter of the face as their hole; half of the drawn ones have more."""
    run = config(validation=ValidationConfig(2, 2, 1, hole_ratio=(0.24, 0.26)))
    run = replace(run, masks=replace(run.masks, shares=replace(run.masks.shares, strokes=9.0), drawn=30))
    held_out = Trainer("coarse", run, data, tmp_path, FABRIC).validation.faces
    assert held_out.masks.float().mean(dim=(1, 2)).tolist() == [0.25, 0.25]
