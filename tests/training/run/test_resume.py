"""What a run leaves on the disk, and how it goes on from there: bit for bit, or with a sentence."""

import resource
import shutil
import signal

import pytest
import torch
from fixtures.training import same, state_of

from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import read_checkpoint
from showface.training.process import Interrupted, make_fabric
from showface.training.run.loop import STATE_FILE, Trainer, train

FABRIC = make_fabric("cpu", 1, "fp32")
INIT = ("../coarse/coarse.safetensors", "../parser/parser.safetensors")


@pytest.mark.parametrize("stage", ["layout", "coarse", "parser", "mdrnet"])
def test_resumed_run_equals_an_uninterrupted_one(stage, data, stages, stop_after, config):
    run = config(init=INIT if stage == "mdrnet" else ())
    whole, parts = stages / f"{stage}-whole", stages / f"{stage}-parts"
    train(stage, run, data, whole, False, FABRIC)
    with stop_after(2), pytest.raises(Interrupted):
        train(stage, run, data, parts, False, FABRIC)
    middle = state_of(parts)
    assert middle["step"] == 2
    torch.manual_seed(99)
    train(stage, run, data, parts, True, FABRIC)
    expected, got = state_of(whole), state_of(parts)
    assert expected["step"] == got["step"] == 4
    assert not same(middle["model"], got["model"])
    for part in ("model", "average", "optimizer", "best"):
        assert same(expected[part], got[part]), part
    name = f"{stage}.safetensors"
    assert read_checkpoint(whole / name).weights_sha256 == read_checkpoint(parts / name).weights_sha256


def test_a_finished_run_without_its_checkpoint_writes_it(data, tmp_path, config):
    """It was killed between the state and the checkpoint."""
    train("coarse", config(2), data, tmp_path / "run", False, FABRIC)
    path = tmp_path / "run/coarse.safetensors"
    before = read_checkpoint(path).weights_sha256
    path.unlink()
    train("coarse", config(2), data, tmp_path / "run", True, FABRIC)
    assert read_checkpoint(path).weights_sha256 == before


def test_a_run_does_not_continue_on_another_frozen_network(data, stages, config, tmp_path):
    shutil.copytree(stages / "coarse", tmp_path / "coarse")
    shutil.copytree(stages / "parser", tmp_path / "parser")
    train("mdrnet", config(2, init=INIT), data, tmp_path / "run", False, FABRIC)
    shutil.rmtree(tmp_path / "coarse")
    train("coarse", config(3), data, tmp_path / "coarse", False, FABRIC)
    with pytest.raises(UsageError, match=r"coarse\.safetensors: has changed since the run"):
        train("mdrnet", config(2, init=INIT), data, tmp_path / "run", True, FABRIC)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_raises(number, data, tmp_path, stop_after, config):
    handler = signal.getsignal(number)
    stopped = pytest.raises(Interrupted, match=r"step 1, which was saved; pass resume=True")
    with stop_after(1, number), stopped as caught:
        train("coarse", config(), data, tmp_path / "run", False, FABRIC)
    assert caught.value.exit_code == 128 + number
    if number == signal.SIGTERM:
        assert caught.value.exit_code == 143
    assert state_of(tmp_path / "run")["step"] == 1
    assert signal.getsignal(number) is handler


def test_saving_changes_nothing(data, tmp_path, config):
    trainer = Trainer("coarse", config(), data, tmp_path, FABRIC)
    trainer.train_step(trainer.feed.batch(0, 2))
    before = {k: v.clone() for k, v in trainer.task.model.state_dict().items()}
    assert not same(before, {**before, **trainer.average})
    trainer.save()
    assert same(before, dict(trainer.task.model.state_dict()))
    assert trainer.task.model.coarse.training


def test_full_disk_leaves_the_previous_state_whole(data, tmp_path, config):
    train("coarse", config(2, checkpoint_every=1), data, tmp_path, False, FABRIC)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    trainer = Trainer("coarse", config(2, checkpoint_every=1), data, tmp_path, FABRIC)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(ShowfaceError, match=r"state\.pt: cannot be written.*whole"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_nothing_to_resume(data, tmp_path, config):
    with pytest.raises(UsageError, match=STATE_FILE):
        train("coarse", config(), data, tmp_path, True, FABRIC)


def test_starting_over_an_existing_run(data, stages, config):
    before = (stages / "coarse" / STATE_FILE).read_bytes()
    with pytest.raises(UsageError, match="holds a run already; resume it") as refused:
        train("coarse", config(), data, stages / "coarse", False, FABRIC)
    assert refused.value.argument == "resume"
    assert (stages / "coarse" / STATE_FILE).read_bytes() == before


def test_resuming_under_another_config(data, stages, config):
    with pytest.raises(UsageError, match="another 'seed'"):
        train("coarse", config(2, seed=5), data, stages / "coarse", True, FABRIC)
