"""The training loop: its steps, frozen networks, the memory, and what it keeps."""

from dataclasses import replace

import pytest
import torch
from fixtures.training import same, state_of
from rich.console import Console

from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import model_from_checkpoint, read_checkpoint
from showface.training.config import OptimizerConfig, PhaseConfig, ValidationConfig
from showface.training.process import Interrupted, make_fabric
from showface.training.run.loop import PREPARE_BATCH, STATE_FILE, Trainer, rate_scale, train
from showface.training.tasks.coarse import CoarseTask

FABRIC = make_fabric("cpu", 1, "fp32")
INIT = ("../coarse/coarse.safetensors", "../parser/parser.safetensors")
SIZE = 64


@pytest.mark.parametrize("stage", ["layout", "coarse", "parser", "mdrnet"])
def test_a_compiled_stage_takes_the_same_step(stage, data, stages, config, monkeypatch):
    """The graphs are captured, and computed by PyTorch's own kernels: generating code takes long.

    So does tracing a network, and its gradients: mdrnet's frozen networks, which are stages here themselves, go without
    gradients, and its faces and batches are of one size, that of the batches from which the memory is filled.
    """
    compile_module = torch.nn.Module.compile

    def capture(self):
        compile_module(self, backend="aot_eager" if self.training else "eager")

    monkeypatch.setattr(torch.nn.Module, "compile", capture)
    changes = {}
    if stage == "mdrnet":
        network = config().network
        network = replace(network, refiner=replace(network.refiner, dilations=(2,)))
        changes = {"init": INIT, "network": network, "phases": {"full": PhaseConfig(4, PREPARE_BATCH, 64)}}
    losses = []
    for name, compiled in (("eager", False), ("compiled", True)):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        trainer = Trainer(stage, config(compile=compiled, **changes), data, stages / f"{stage}-{name}", FABRIC)
        trainer.begin_step()
        for step in range(2):
            size = trainer.config.phase_at(step).batch_size
            terms, _ = trainer.train_step(trainer.feed.batch(step, size))
        losses.append(float(terms["total"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("stage", ["layout", "coarse", "parser", "mdrnet"])
def test_a_step_in_bfloat16(stage, data, stages, config):
    """What the GPU's configs train in: near the loss in float32, and the weights themselves stay float32."""
    losses = []
    for precision in ("fp32", "bf16"):
        run = config(
            init=INIT if stage == "mdrnet" else (), precision=precision, gradients_every=int(stage == "mdrnet")
        )
        trainer = Trainer(stage, run, data, stages / f"{stage}-{precision}", make_fabric("cpu", 1, precision))
        trainer.begin_step()
        terms, _ = trainer.train_step(trainer.feed.batch(0, 2))
        losses.append(float(terms["total"]))
        assert {p.dtype for p in trainer.parameters} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_frozen_networks_stay_as_they_are(data, stages, config):
    trainer = Trainer("mdrnet", config(init=INIT), data, stages / "mdrnet-frozen", FABRIC)
    chain = trainer.task.model
    before = {k: v.clone() for k, v in chain.state_dict().items()}
    trainer.run(Console(quiet=True))
    for network in (chain.coarse, chain.parser):
        assert not any(m.training for m in network.modules())
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    changed = {k.split(".")[0] for k, v in chain.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"memory", "mrem", "refiner"}
    assert not torch.equal(chain.state_dict()["memory.bank.slots"], before["memory.bank.slots"])
    model, checkpoint = model_from_checkpoint(stages / "mdrnet-frozen/mdrnet.safetensors")
    assert checkpoint.stages == ("coarse", "parser", "memory", "mrem", "refiner")
    assert checkpoint.training["mdrnet"]["steps"] == 4
    for stage in ("coarse", "parser"):
        for key, value in read_checkpoint(stages / stage / f"{stage}.safetensors").weights.items():
            assert torch.equal(model.state_dict()[key], value.to(model.state_dict()[key].dtype)), key


ORACLE = 4  # head, scales of SPADE and encoder start to learn one after the other: the first two start at zero


def oracle(config, **changes):
    return config(ORACLE + 2, init=INIT, oracle_steps=ORACLE, **changes)


def test_the_memory_is_filled_once_the_encoder_has_learnt(data, stages, config, stop_after):
    """Also across an interruption right before it: the state is saved, then the memory is filled."""
    run = oracle(config)
    whole, parts = stages / "oracle-whole", stages / "oracle-parts"
    train("mdrnet", run, data, whole, False, FABRIC)
    with stop_after(ORACLE), pytest.raises(Interrupted):
        train("mdrnet", run, data, parts, False, FABRIC)
    train("mdrnet", run, data, parts, True, FABRIC)
    expected, got = state_of(whole), state_of(parts)
    for part in ("model", "average", "optimizer"):
        assert same(expected[part], got[part]), part


def test_the_encoder_learns_before_the_memory_is_filled_and_stays_afterwards(data, stages, config):
    trainer = Trainer("mdrnet", oracle(config), data, stages / "oracle-encoder", FABRIC)
    key, slots = "memory.encoder.conv1.weight", "memory.bank.slots"
    weights, memories = [], []
    for step in range(ORACLE + 2):
        trainer.begin_step()
        weights.append(trainer.task.state()[key].clone())
        memories.append(trainer.task.state()[slots].clone())
        if step == ORACLE:
            assert torch.equal(weights[ORACLE], trainer.average[key])  # the average is what stays
            assert torch.equal(trainer.average[slots], memories[ORACLE])
        trainer.train_step(trainer.feed.batch(step, 2))
    assert not torch.equal(weights[0], weights[ORACLE - 1])
    assert torch.equal(weights[ORACLE], weights[ORACLE + 1])
    assert torch.equal(weights[ORACLE + 1], trainer.task.state()[key])
    assert torch.equal(memories[0], memories[ORACLE - 1])
    assert not torch.equal(memories[ORACLE - 1], memories[ORACLE])
    assert not torch.equal(memories[ORACLE], memories[ORACLE + 1])  # eqs 2 and 3


def test_codes_of_whole_faces_need_a_memory(data, stages, config):
    run = oracle(config)
    run = replace(run, network=replace(run.network, memory=replace(run.network.memory, kind="none")))
    with pytest.raises(UsageError, match=r"oracle_steps: .*memory.*remove the key"):
        Trainer("mdrnet", run, data, stages / "no-oracle", FABRIC)


def test_nan_loss_names_step_and_files(data, tmp_path, monkeypatch, config):
    original = CoarseTask.forward

    def broken(self, *sample):
        outcome = original(self, *sample)
        loss = outcome.terms["reconstruction"] * (float("nan") if trainer.step == 1 else 1)
        return outcome._replace(terms={"reconstruction": loss})

    monkeypatch.setattr(CoarseTask, "forward", broken)
    trainer = Trainer("coarse", config(checkpoint_every=1), data, tmp_path, FABRIC)
    with pytest.raises(ShowfaceError, match=r"step 1.*'reconstruction' is nan") as caught:
        trainer.run(Console(quiet=True))
    assert not isinstance(caught.value, UsageError)
    for name in trainer.feed.batch(1, 2).names:
        assert name in str(caught.value)
    assert str(tmp_path / STATE_FILE) in str(caught.value)
    assert state_of(tmp_path)["step"] == 1


def test_best_and_every_nth_checkpoint_are_kept(data, tmp_path, config):
    run = config(4, keep_every=2, validation=ValidationConfig(holdout_every=2, faces=2, every=1))
    trainer = Trainer("coarse", run, data, tmp_path, FABRIC)
    losses = []
    original = trainer.validate
    trainer.validate = lambda: losses.append(original()) or losses[-1]
    trainer.run(Console(quiet=True))
    totals = [terms["total"] for terms in losses]
    assert len(totals) == 4
    assert trainer.best == min(totals)
    best = read_checkpoint(tmp_path / "coarse-best.safetensors")
    assert best.training["coarse"]["steps"] == totals.index(min(totals)) + 1
    kept = [read_checkpoint(tmp_path / f"coarse-step000000{n}.safetensors") for n in (2, 4)]
    assert [c.training["coarse"]["steps"] for c in kept] == [2, 4]
    assert kept[1].weights_sha256 == read_checkpoint(tmp_path / "coarse.safetensors").weights_sha256


def test_the_layout_network_learns_alone_and_a_coarse_network_starts_from_it(data, stages, config):
    whole = config()
    trainer = Trainer("layout", whole, data, stages / "layout", FABRIC)
    before = {k: v.clone() for k, v in trainer.task.model.state_dict().items()}
    trainer.run(Console(quiet=True))
    after = trainer.task.model.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed
    assert all(key.startswith("coarse.layout.unet.") for key in changed)
    saved = read_checkpoint(stages / "layout/layout.safetensors")
    assert saved.stages == ("coarse.layout",)

    plain = replace(whole, network=replace(whole.network, coarse=replace(whole.network.coarse, layout=None)))
    train("coarse", plain, data, stages / "plain", False, FABRIC)
    init = ("../plain/coarse.safetensors", "../layout/layout.safetensors")
    start = Trainer("coarse", config(init=init), data, stages / "joint", FABRIC).task.model.coarse.eval()
    for key, value in {**read_checkpoint(stages / "plain/coarse.safetensors").weights, **saved.weights}.items():
        assert torch.equal(start.state_dict()[key.removeprefix("coarse.")].to(value.dtype), value)


def test_a_layout_network_that_was_not_trained_is_missed(data, stages, config):
    plain = config()
    plain = replace(plain, network=replace(plain.network, coarse=replace(plain.network.coarse, layout=None)))
    with pytest.raises(UsageError, match=r"layout: the stage layout trains this network"):
        Trainer("layout", plain, data, stages / "no-layout", FABRIC)
    train("coarse", plain, data, stages / "without", False, FABRIC)
    init = ("../without/coarse.safetensors", "../parser/parser.safetensors")
    with pytest.raises(UsageError, match=r"needs the trained coarse\.layout; .*showface train layout"):
        Trainer("mdrnet", config(init=init), data, stages / "no-layout", FABRIC)


def test_validation_changes_nothing(data, stages, config):
    run = config(init=INIT, validation=ValidationConfig(holdout_every=2, faces=2, every=1))
    trainer = Trainer("mdrnet", run, data, stages / "mdrnet-validated", FABRIC)
    before = {k: v.clone() for k, v in trainer.task.state_dict().items()}
    first = trainer.validate()
    assert same(before, dict(trainer.task.state_dict()))
    assert trainer.task.model.refiner.training
    assert not trainer.task.model.coarse.training
    assert trainer.validate() == first


def test_tensorboard_has_scalars_and_grids(data, tmp_path, config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("coarse", config(4, log_every=2, grid_every=2), data, tmp_path, False, FABRIC)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss/reconstruction")] == [2, 4]
    assert {"images_per_second", "loss/total"} <= set(events.Tags()["scalars"])
    picture = events.Images("faces")[-1]
    assert (picture.step, picture.width, picture.height) == (4, 3 * SIZE, 2 * SIZE)


def test_unknown_loss_term(data, tmp_path, config):
    with pytest.raises(UsageError, match="adversarial"):
        Trainer("coarse", config(loss={"adversarial": 1.0}), data, tmp_path, FABRIC)


def test_unknown_stage(data, tmp_path, config):
    with pytest.raises(UsageError, match=r"'refiner'.*mdrnet"):
        Trainer("refiner", config(), data, tmp_path, FABRIC)


def test_cuda_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="0 CUDA devices"):
        make_fabric("cuda", 1, "fp32")


def test_missing_init(data, tmp_path, config):
    with pytest.raises(UsageError, match=r"coarse\.safetensors"):
        Trainer("mdrnet", config(init=INIT), data, tmp_path / "mdrnet", FABRIC)


def test_learning_rate_schedule():
    optimizer = OptimizerConfig(warmup_steps=4)
    rates = [rate_scale(optimizer, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.25)
    assert max(rates) == rates[3]
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert rate_scale(replace(optimizer, cosine=False), 99, 100) == 1.0


@pytest.mark.parametrize(("capability", "warns"), [("AVX2", True), ("AVX512", False)])
def test_bfloat16_on_a_cpu_that_lacks_it_is_pointed_out(capability, warns, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    make_fabric("cpu", 1, "bf16")
    assert ("bfloat16 in software" in caplog.text) == warns
    caplog.clear()
    make_fabric("cpu", 1, "fp32")
    assert "bfloat16" not in caplog.text
