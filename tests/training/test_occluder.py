"""The occluder: its size, its loss against plain numpy, and that it learns what covers a face."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from showface.runtime.errors import UsageError
from showface.training.checkpoint import read_checkpoint
from showface.training.config import NetworkConfig, OptimizerConfig, PhaseConfig, SourceConfig, TrainConfig
from showface.training.networks.parser import ContextPath
from showface.training.occluder.config import OccluderConfig, OcclusionConfig, ShareConfig
from showface.training.occluder.network import Occluder
from showface.training.occluder.task import BOUNDARY_WEIGHT, boundary_cross_entropy, overlay, soft_dice_loss
from showface.training.process import make_fabric
from showface.training.run.loop import Trainer, train
from showface.training.run_files import STATE_FILE
from showface.training.weight_files import load_mobilenet

FABRIC = make_fabric("cpu", 1, "fp32")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Ten grey faces, on which only drawn things are pasted."""
    import cv2

    root = tmp_path_factory.mktemp("faces")
    (root / "plain").mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).normal(120, 6, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / f"plain/{i}.png"), pixels)
    return root


def config(steps=4, **changes):
    shares = ShareConfig(*(0.0,) * 14)
    base = TrainConfig(
        {"plain": SourceConfig("plain")},
        {"all": PhaseConfig(steps, 4, 64)},
        precision="fp32",
        occluder=OccluderConfig(16, 64),
        occlusion=OcclusionConfig(samples=24, shares=replace(shares, cloth=1.0, nothing=0.3)),
        network=NetworkConfig(64),
    )
    return replace(base, **changes)


def test_it_is_small_and_answers_at_the_size_of_its_input():
    network = Occluder(OccluderConfig()).eval()
    assert sum(p.numel() for p in network.parameters()) <= 1_000_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = network(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() <= 1e9
    assert logits.shape == (1, 1, 256, 256)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 160, 192)).shape == (2, 1, 160, 192)


def test_a_face_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    network = Occluder(OccluderConfig()).eval()
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        together, alone = network(image), network(image[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_it_takes_the_weights_of_the_parser_s_backbone(tmp_path):
    torch.manual_seed(1)
    donor = ContextPath(64)
    save_file({f"features.{k}": v for k, v in donor.features.state_dict().items()}, tmp_path / "mobile.safetensors")
    network = Occluder(OccluderConfig())
    load_mobilenet(network.encoder.features, tmp_path / "mobile.safetensors")
    for key, value in network.encoder.features.state_dict().items():
        assert torch.equal(value, donor.features.state_dict()[key]), key
    save_file({"features.0.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="MobileNetV2"):
        load_mobilenet(network.encoder.features, tmp_path / "other.safetensors")


def case(seed=0, size=24):
    rng = np.random.default_rng(seed)
    target = np.zeros((2, 1, size, size), np.float32)
    target[0, 0, 6:15, 4:18] = 1
    counted = (rng.random(target.shape) > 0.2).astype(np.float32)
    return rng.normal(0, 2, target.shape).astype(np.float32), target, counted


def test_cross_entropy_weighs_outlines_and_leaves_out_what_is_not_counted():
    logits, target, counted = case()
    total = weights = 0.0
    for b in range(2):
        for y in range(24):
            for x in range(24):
                part = target[b, 0, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
                weight = counted[b, 0, y, x] * (BOUNDARY_WEIGHT if 0 < part.mean() < 1 else 1.0)
                p = 1 / (1 + np.exp(-np.float64(logits[b, 0, y, x])))
                total -= weight * np.log(p if target[b, 0, y, x] else 1 - p)
                weights += weight
    found = boundary_cross_entropy(*map(torch.from_numpy, (logits, target, counted)))
    assert found.item() == pytest.approx(total / weights, rel=1e-4)


def test_dice_is_of_each_picture_and_leaves_out_what_is_not_counted():
    logits, target, counted = case(1)
    p = 1 / (1 + np.exp(-logits.astype(np.float64))) * counted
    slack, losses = 0.01 * 24 * 24, []
    for b in range(2):
        t = (target * counted)[b]
        losses.append(1 - (2 * (p[b] * t).sum() + slack) / (p[b].sum() + t.sum() + slack))
    assert soft_dice_loss(*map(torch.from_numpy, (logits, target, counted))).item() == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("loss", [boundary_cross_entropy, soft_dice_loss])
def test_what_is_not_counted_has_no_gradient(loss):
    logits, target, counted = map(torch.from_numpy, case(2))
    logits.requires_grad_()
    loss(logits, target, counted).backward()
    assert (logits.grad[counted == 0] == 0).all()
    assert (logits.grad[counted == 1] != 0).all()


def test_a_perfect_answer_costs_nothing_and_an_empty_one_much():
    _, target, _ = map(torch.from_numpy, case(3))
    counted, sure = torch.ones_like(target), (target * 2 - 1) * 30
    for loss in (boundary_cross_entropy, soft_dice_loss):
        assert loss(sure, target, counted) < 1e-3
        assert loss(-sure, target, counted) > 0.5


def test_overlay_paints_red_by_the_share():
    image = torch.zeros(1, 3, 2, 2)
    share = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    painted = overlay(image, share)
    assert painted[0, :, 0, 1] == pytest.approx((0.6, -0.6, -0.6))
    assert painted[0, :, 1, 0] == pytest.approx((0.3, -0.3, -0.3))
    assert torch.equal(painted[0, :, 0, 0], torch.zeros(3))


def test_it_learns_to_find_cloth(faces, tmp_path):
    run = config(60, optimizer=OptimizerConfig(1e-2, warmup_steps=5, clip_norm=5.0))
    trainer = Trainer("occluder", run, faces, tmp_path, FABRIC)
    terms = [float(trainer.train_step(batch)[0]["total"]) for batch in trainer.feed.batches(0)]
    assert np.mean(terms[-10:]) < 0.6 * np.mean(terms[:10])


def test_it_is_trained_at_the_resolution_that_it_works_at(faces, tmp_path):
    with pytest.raises(UsageError, match=r"phases\.all\.resize = 64: the occluder works at occluder\.side = 160"):
        Trainer("occluder", config(occluder=OccluderConfig(16)), faces, tmp_path, FABRIC)


def test_a_resumed_run_equals_an_uninterrupted_one(faces, tmp_path):
    train("occluder", config(), faces, tmp_path / "whole", False, FABRIC)
    half = Trainer("occluder", config(), faces, tmp_path / "parts", FABRIC)
    for batch, _ in zip(half.feed.batches(0), range(2), strict=False):
        half.train_step(batch)
    half.save()
    train("occluder", config(), faces, tmp_path / "parts", True, FABRIC)
    whole, parts = (torch.load(tmp_path / n / STATE_FILE, weights_only=True) for n in ("whole", "parts"))
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][k], parts[part][k]) for k in whole[part])
    checkpoint = read_checkpoint(tmp_path / "parts/occluder.safetensors")
    assert checkpoint.stages == ("occluder",)
    assert checkpoint.training["occluder"]["config"]["occluder"] == {"width": 16, "side": 64}
