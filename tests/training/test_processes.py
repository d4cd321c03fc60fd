"""Training in processes of its own: killed and resumed, and spread over two ranks."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from fixtures.training import state_of

CONFIG = """
init = ["../coarse/coarse.safetensors", "../parser/parser.safetensors"]
coordination = "../reconstruction/reconstruction.safetensors"
precision = "fp32"
memory_faces = 16
checkpoint_every = {checkpoint_every}
grid_every = 1000

[sources.a]
images = "images"

[masks]
folder = "masks/train"

[phases.full]
steps = {steps}
batch_size = 4
resize = 64

[augment]
rotate = 5.0
color = 0.1

[optimizer]
learning_rate = 1e-3
clip_norm = 1.0

[loss]
intra = 1.0
inter = 1.0
semantic = 0.1
adversarial = 0.1
total_variation = 0.1

[adversarial]
width = 8

[validation]
holdout_every = 2
faces = 2
every = 2

[network]
image_size = 64
coarse = {{ widths = [8, 8, 8], full_width = 8, layout = {{ widths = [8, 8], full_width = 8 }} }}
parser = {{ width = 8 }}
memory = {{ channels = 8, slots = 4, encoder_width = 8 }}
refiner = {{ body_widths = [8, 8, 8], detail_widths = [8, 8, 8], dilations = [2], spade_hidden = 8 }}
"""
TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "showface.cli")
# A process of a run, started as a fork: loading the libraries takes three times as long as the run.
FORK = """
import os, sys
os.environ.update(environment)
log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
from showface.cli import main
main(arguments)
"""


@pytest.fixture(scope="module")
def forks():
    """Return the context of processes that are forks of one which has loaded the libraries, with a thread each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["showface.evaluation.quality.ablation", "showface.training.config_reader"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        first = context.Process(target=exec, args=("import os; assert os.environ['OMP_NUM_THREADS'] == '1'", {}))
        first.start()
        first.join()
    assert first.exitcode == 0
    return context


@pytest.fixture
def options(data, stages, tmp_path):
    """Return a function that gives the arguments of a run."""

    def make(name, *more, steps=4, checkpoint_every=100):
        config = tmp_path / "run.toml"
        config.write_text(CONFIG.format(steps=steps, checkpoint_every=checkpoint_every), encoding="utf-8")
        places = ("--config", config, "--data", data, "--output", stages / name, *more)
        return ["train", "mdrnet", *map(str, places)]

    return make


@pytest.fixture
def start(forks, tmp_path):
    """Return a function that starts the command line, or a rank of it, in a process of its own, which writes a log."""

    def begin(arguments, environment=None):
        facts = {"environment": environment or {}, "path": str(tmp_path / "log"), "arguments": arguments}
        process = forks.Process(target=exec, args=(FORK, facts))
        process.start()
        return process

    return begin


@pytest.fixture
def finish(tmp_path):
    """Return a function that waits for a process, and for its exit code."""

    def wait(process, code=0):
        process.join(300)
        assert process.exitcode == code, (tmp_path / "log").read_text()

    return wait


def largest_difference(a, b):
    """Return the largest absolute difference of two nested states."""
    if isinstance(a, torch.Tensor):
        return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, list | tuple):
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    assert isinstance(a, float) or a == b
    return abs(a - b) if isinstance(a, float) else 0.0


def ranks():
    """Return the environments of two ranks, as ``torchrun`` sets them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "two", "WORLD_SIZE": "2"}
    sizes = {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    return [{**shared, **sizes, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


def test_two_processes_equal_one(start, options, finish, stages):
    """Same faces, gradients, memory and metrics, whatever the number of processes."""
    two = [start(options("two"), environment) for environment in ranks()]
    finish(start(options("one")))
    for rank in two:
        finish(rank)
    one, two = state_of(stages / "one"), state_of(stages / "two")
    assert two["step"] == 4
    slots = "memory.bank.slots"
    assert largest_difference(one["model"][slots], two["model"][slots]) < 1e-5
    for optimizer in ("optimizer", "adversary"):
        moments = [gradients_of(state[optimizer]) for state in (one, two)]
        assert all(moments)
        assert 0 < largest_difference(*moments) < 1e-5  # of ranks that had not met it would be 0
    assert abs(one["best"] - two["best"]) < 1e-5
    # Adam divides by the gradient's size: where that is about zero, rounding decides the step.
    for part in ("model", "average"):
        assert largest_difference(one[part], two[part]) < 1e-4, part


def gradients_of(optimizer):
    """Return Adam's running means of the gradients."""
    return {k: s["exp_avg"] for k, s in optimizer.get("optimizer", optimizer)["state"].items()}


def wait_for_state(path, ended):
    deadline = time.monotonic() + 300
    while not path.is_file():
        assert ended() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_resumed_run_equals_an_uninterrupted_one(number, start, options, finish, stages, tmp_path):
    if not (stages / "whole").exists():  # one such run serves both signals
        finish(start(options("whole", steps=12, checkpoint_every=1)))
    name = f"stopped-{number}"
    process = start(options(name, steps=12, checkpoint_every=1))
    wait_for_state(stages / name / "state.pt", lambda: process.exitcode)
    os.kill(process.pid, number)
    finish(process, 143 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGTERM:
        said = " ".join((tmp_path / "log").read_text().split())
        assert "which was saved; use --resume to go on" in said
    assert 1 <= state_of(stages / name)["step"] < 12
    finish(start(options(name, "--resume", steps=12, checkpoint_every=1)))
    whole, resumed = state_of(stages / "whole"), state_of(stages / name)
    for part in ("step", "model", "average", "optimizer", "adversary", "best"):
        assert largest_difference(whole[part], resumed[part]) == 0, part
    checkpoints = [(stages / folder / "mdrnet.safetensors").read_bytes() for folder in ("whole", name)]
    assert checkpoints[0] == checkpoints[1]


def test_sigterm_ends_both_ranks(options, stages, tmp_path):
    command = [sys.executable, *TWO_RANKS, *options("both", steps=2000, checkpoint_every=1)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    wait_for_state(stages / "both/state.pt", process.poll)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=300)
    assert process.returncode != 0
    step = state_of(stages / "both")["step"]
    assert 1 <= step < 2000


def test_an_ablation_on_two_processes_is_written_once(start, finish, data, stages, evaluation_set, tmp_path):
    """Both ranks train and measure; one of them writes and prints."""
    config = tmp_path / "run.toml"
    init = CONFIG.replace('"../', '"../../').format(steps=2, checkpoint_every=1)
    config.write_text(init, encoding="utf-8")
    places = ("--data", data, "--images", evaluation_set.images, "--masks", evaluation_set.masks)
    options = ("--config", config, "--output", stages / "rows", "--devices", 2, *places)
    arguments = list(map(str, ("ablate", "modules", "--rows", "full", *options)))
    for rank in [start(arguments, environment) for environment in ranks()]:
        finish(rank)
    assert state_of(stages / "rows/full")["step"] == 2
    scores = json.loads((stages / "rows/full/scores.json").read_text())["scores"]
    assert {bucket: row["images"] for bucket, row in scores.items()} == {"1-20": 2, "20-40": 2, "40-60": 2}
    psnr = f"{scores['40-60']['psnr']:.3f}"
    assert (tmp_path / "log").read_text().count(f"| 40-60% | PSNR ↑ | {psnr} | 24.177 |") == 1
