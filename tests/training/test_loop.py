"""The training loop: resuming bit for bit, frozen networks, and how it stops."""

import os
import signal
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import model_from_checkpoint, read_checkpoint
from showface.training.config import (
    AugmentConfig,
    CoarseConfig,
    MemoryConfig,
    NetworkConfig,
    OptimizerConfig,
    ParserConfig,
    PhaseConfig,
    RefinerConfig,
    SourceConfig,
    TrainConfig,
)  # fmt: skip
from showface.training.loop import STATE_FILE, Interrupted, Trainer, learning_rate, train
from showface.training.tasks import TASKS

SIZE = 64
CPU = torch.device("cpu")
INIT = ("../coarse/coarse.safetensors", "../parser/parser.safetensors")
NETWORK = NetworkConfig(
    SIZE,
    CoarseConfig((8, 8, 8), 8),
    ParserConfig(8),
    MemoryConfig(channels=8, slots=4, encoder_width=8),
    refiner=RefinerConfig(8, (2,), 8),
)


@pytest.fixture(scope="module")
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


def config(steps=4, **changes):
    base = TrainConfig(
        {"a": SourceConfig("images", 1.0, "labels")},
        {"half": PhaseConfig(1, 2, 64, crop=32), "full": PhaseConfig(steps - 1, 2, SIZE)},
        precision="fp32",
        augment=AugmentConfig(5.0, 0.1, 0.1, 0.1, 0.5),
        optimizer=OptimizerConfig(1e-2, warmup_steps=2, clip_norm=1.0),
        network=NETWORK,
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def stages(data, tmp_path_factory):
    """An output folder with a trained coarse network and parser."""
    root = tmp_path_factory.mktemp("runs")
    for stage in ("coarse", "parser"):
        train(stage, config(2), data, root / stage, False, CPU)
    return root


def stop_after(monkeypatch, step, number=signal.SIGTERM):
    """Send this process a signal in the middle of the given step."""
    original = Trainer.train_step

    def patched(self):
        if self.step == step - 1:
            os.kill(os.getpid(), number)
        return original(self)

    monkeypatch.setattr(Trainer, "train_step", patched)


def same(a, b):
    """Compare nested states bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def state_of(output):
    return torch.load(output / STATE_FILE, weights_only=True)


@pytest.mark.parametrize("stage", ["coarse", "parser", "mdrnet"])
def test_resumed_run_equals_an_uninterrupted_one(stage, data, stages, monkeypatch):
    run = config(init=INIT if stage == "mdrnet" else ())
    whole, parts = stages / f"{stage}-whole", stages / f"{stage}-parts"
    train(stage, run, data, whole, False, CPU)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(stage, run, data, parts, False, CPU)
    middle = state_of(parts)
    assert middle["step"] == 2
    torch.manual_seed(99)
    train(stage, run, data, parts, True, CPU)
    expected, got = state_of(whole), state_of(parts)
    assert expected["step"] == got["step"] == 4
    assert not same(middle["model"], got["model"])
    for part in ("model", "average", "optimizer"):
        assert same(expected[part], got[part]), part
    name = f"{stage}.safetensors"
    assert read_checkpoint(whole / name).sha256 == read_checkpoint(parts / name).sha256


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_raises(number, data, tmp_path, monkeypatch):
    handler = signal.getsignal(number)
    stop_after(monkeypatch, 1, number)
    with pytest.raises(Interrupted, match=r"step 1.*--resume") as caught:
        train("coarse", config(), data, tmp_path / "run", False, CPU)
    assert caught.value.exit_code == 128 + number
    if number == signal.SIGTERM:
        assert caught.value.exit_code == 143
    assert state_of(tmp_path / "run")["step"] == 1
    assert signal.getsignal(number) is handler


def test_frozen_networks_stay_as_they_are(data, stages):
    trainer = Trainer(TASKS["mdrnet"], config(init=INIT), data, stages / "mdrnet-frozen", CPU)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run(Console(quiet=True))
    assert not any(m.training for n in ("coarse", "parser") for m in getattr(trainer.model, n).modules())
    changed = {k.split(".")[0] for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"memory", "mrem", "refiner"}
    assert not torch.equal(trainer.model.state_dict()["memory.bank.slots"], before["memory.bank.slots"])
    model, checkpoint = model_from_checkpoint(stages / "mdrnet-frozen/mdrnet.safetensors")
    assert checkpoint.stages == ("coarse", "parser", "memory", "mrem", "refiner")
    assert checkpoint.training["mdrnet"]["steps"] == 4
    for stage in ("coarse", "parser"):
        for key, value in read_checkpoint(stages / stage / f"{stage}.safetensors").weights.items():
            assert torch.equal(model.state_dict()[key], value.to(model.state_dict()[key].dtype)), key


def test_saving_changes_nothing(data, tmp_path):
    trainer = Trainer(TASKS["coarse"], config(), data, tmp_path, CPU)
    trainer.train_step()
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert not same(before, {**before, **trainer.average})
    trainer.save()
    assert same(before, dict(trainer.model.state_dict()))
    assert trainer.model.coarse.training


def test_nan_loss_names_step_and_files(data, tmp_path):
    def broken(model, sample, weights):
        terms = TASKS["coarse"].loss(model, sample, weights)
        return {"hole": terms["hole"] * float("nan")} if trainer.step == 1 else terms

    trainer = Trainer(replace(TASKS["coarse"], loss=broken), config(), data, tmp_path, CPU)
    with pytest.raises(ShowfaceError, match=r"step 1.*nan") as caught:
        trainer.run(Console(quiet=True))
    assert not isinstance(caught.value, UsageError)
    for name in trainer.dataset.batch(1, 2).names:
        assert name in str(caught.value)
    assert trainer.step == 1


def test_nothing_to_resume(data, tmp_path):
    with pytest.raises(UsageError, match=STATE_FILE):
        train("coarse", config(), data, tmp_path, True, CPU)


def test_starting_over_an_existing_run(data, stages):
    before = (stages / "coarse" / STATE_FILE).read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        train("coarse", config(), data, stages / "coarse", False, CPU)
    assert (stages / "coarse" / STATE_FILE).read_bytes() == before


def test_unknown_loss_term(data, tmp_path):
    with pytest.raises(UsageError, match="perceptual"):
        Trainer(TASKS["coarse"], config(loss={"perceptual": 1.0}), data, tmp_path, CPU)


def test_missing_init(data, tmp_path):
    with pytest.raises(UsageError, match=r"coarse\.safetensors"):
        Trainer(TASKS["mdrnet"], config(init=INIT), data, tmp_path / "mdrnet", CPU)


def test_learning_rate_schedule():
    optimizer = OptimizerConfig(1.0, warmup_steps=4)
    rates = [learning_rate(optimizer, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.25)
    assert max(rates) == rates[3]
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert learning_rate(replace(optimizer, cosine=False), 99, 100) == 1.0
