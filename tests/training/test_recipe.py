"""Recipes: what is wrong is said before the first run, runs follow one another, and a stopped recipe continues."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

import showface.training.configs
from showface.cli import main
from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import read_checkpoint, save_checkpoint
from showface.training.config import CoarseConfig, LayoutConfig, NetworkConfig, TrainConfig
from showface.training.config_reader import config_from_toml
from showface.training.networks.mdrnets import MDRNets
from showface.training.recipe import RecipeConfig, read_recipe, train_all
from showface.training.tasks.table import TASKS

SHIPPED = sorted(Path(str(resources.files(showface.training.configs))).glob("*.toml"))
CONFIG = """
precision = "fp32"
checkpoint_every = 1
init = {init}

[sources.a]
images = "images"

[masks]
folder = "masks/train"

[phases.full]
steps = 2
batch_size = 2
resize = 64

[network]
image_size = 64
coarse = {{ widths = [8, 8, 8], full_width = 8{layout} }}
"""
LAYOUT = ", layout = { widths = [8, 8], full_width = 8 }"


@pytest.fixture
def recipe(tmp_path):
    """A recipe of a layout network and a coarse network that builds on it."""
    (tmp_path / "layout.toml").write_text(CONFIG.format(init="[]", layout=LAYOUT))
    (tmp_path / "coarse.toml").write_text(CONFIG.format(init='["../layout/layout.safetensors"]', layout=LAYOUT))
    path = tmp_path / "all.toml"
    runs = [{"stage": "layout", "config": "layout.toml"}, {"stage": "coarse", "config": "coarse.toml", "output": "c"}]
    path.write_text("runs = [" + ", ".join(_inline(run) for run in runs) + "]\n")
    return path


def _inline(run):
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in run.items()) + " }"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_whole(path, tmp_path):
    """Every checkpoint that a run starts from is left by an earlier run; every file it reads is one of its config's."""
    for entry in config_from_toml(RecipeConfig, path).runs:
        config = config_from_toml(TrainConfig, path.parent / entry.config)
        for source in config.sources.values():
            for name in filter(None, (source.images, source.labels)):
                (tmp_path / name).mkdir(parents=True, exist_ok=True)
        paths = (config.masks.folder, config.masks.part_labels, config.backbone, config.perceptual.weights)
        for name in filter(None, (*paths, *TASKS[entry.stage].files(config))):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
    if path.stem == "single-gpu":
        shipped = tmp_path / "runs/shipped/mdrnet.safetensors"
        shipped.parent.mkdir(parents=True)
        network = NetworkConfig(coarse=CoarseConfig(layout=LayoutConfig()))
        save_checkpoint(shipped, MDRNets(network), network, ["coarse", "parser"], {})
    runs = read_recipe(path, tmp_path, tmp_path / "runs")
    assert runs[-1].stage == "mdrnet"
    assert {"coarse", "parser", "mdrnet"} <= {run.stage for run in runs}


def test_recipes_are_shipped():
    assert [path.stem for path in SHIPPED] == ["paper-ffhq", "paper", "single-gpu", "small-cpu"]


def test_runs_follow_one_another_and_a_stopped_recipe_continues(
    recipe, data, tmp_path, monkeypatch, stop_after, capsys
):
    train_all(read_recipe(recipe, data, tmp_path / "whole"), data, False, "cpu", 1)
    stopped = read_recipe(recipe, data, tmp_path / "stopped")
    with stop_after(1, stage="coarse"), pytest.raises(ShowfaceError, match="stopped at step 1"):
        train_all(stopped, data, False, "cpu", 1)
    assert torch.load(tmp_path / "stopped/c/state.pt", weights_only=True)["step"] == 1
    with pytest.raises(UsageError, match="layout: holds a run already; resume it"):
        train_all(stopped, data, False, "cpu", 1)
    capsys.readouterr()
    train_all(stopped, data, True, "cpu", 1)
    checkpoints = [read_checkpoint(tmp_path / name / "c/coarse.safetensors") for name in ("whole", "stopped")]
    assert checkpoints[0].weights_sha256 == checkpoints[1].weights_sha256
    said = capsys.readouterr().out.replace("\n", "")
    assert "layout: finished before" in said
    assert "c: coarse" in said

    monkeypatch.setattr("showface.training.recipe.train", lambda *_: pytest.fail("trained again"))
    train_all(stopped, data, True, "cpu", 1)
    (tmp_path / "layout.toml").write_text(CONFIG.format(init="[]", layout=LAYOUT).replace("steps = 2", "steps = 3"))
    with pytest.raises(UsageError, match="another 'phases'"):
        train_all(read_recipe(recipe, data, tmp_path / "stopped"), data, True, "cpu", 1)


def test_a_recipe_on_two_processes(recipe, data, tmp_path):
    """The second run takes the processes of the first one, which wait for its checkpoint; one says what was written."""
    for name in ("layout.toml", "coarse.toml"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("checkpoint_every = 1", "checkpoint_every = 100"))
    options = ("--config", recipe, "--data", data, "--output", tmp_path / "runs", "--devices", "2")
    command = [sys.executable, "-m", "showface.cli", "train", "all", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert outcome.returncode == 0, outcome.stdout
    steps = [torch.load(tmp_path / f"runs/{name}/state.pt", weights_only=True)["step"] for name in ("layout", "c")]
    assert steps == [2, 2]
    assert outcome.stdout.count("next: showface export") == 1


def test_the_verb_names_the_option_that_mends(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "all", "--config", str(recipe), "--data", str(tmp_path / "elsewhere")])
    said = " ".join(capsys.readouterr().err.split())
    assert (ended.value.code, said.startswith("error: --data: ")) == (2, True), said
    assert "not there; name the data folder that holds it" in said


def test_the_help_names_every_stage(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert set(TASKS) <= set(re.findall(r"[a-z]+", capsys.readouterr().out))


def test_a_finished_run_on_a_checkpoint_that_was_replaced_is_not_finished(recipe, data, tmp_path):
    train_all(read_recipe(recipe, data, tmp_path / "runs"), data, False, "cpu", 1)
    shutil.rmtree(tmp_path / "runs/layout")
    (tmp_path / "layout.toml").write_text(
        (tmp_path / "layout.toml").read_text() + "\n[optimizer]\nlearning_rate = 0.1\n"
    )
    with pytest.raises(
        UsageError, match=r"layout\.safetensors: has changed since .*; restore it, or remove .*c to train"
    ):
        train_all(read_recipe(recipe, data, tmp_path / "runs"), data, True, "cpu", 1)
    shutil.rmtree(tmp_path / "runs/c")
    train_all(read_recipe(recipe, data, tmp_path / "runs"), data, True, "cpu", 1)


@pytest.mark.parametrize(
    ("key", "name", "made"),
    [
        ("[validation]\nholdout_every = 2", "layout-best", True),
        ("", "layout-best", False),
        ("keep_every = 1", "layout-step0000002", True),
        ("keep_every = 1", "layout-step0000003", False),
    ],
)
def test_a_run_may_start_from_any_checkpoint_that_an_earlier_one_keeps(key, name, made, recipe, data, tmp_path):
    path = tmp_path / "layout.toml"
    keys, tables = ("", key) if key.startswith("[") else (key, "")
    path.write_text(f"{keys}\n{path.read_text()}\n{tables}\n")
    path = tmp_path / "coarse.toml"
    path.write_text(path.read_text().replace("layout.safetensors", f"{name}.safetensors"))
    if made:
        assert len(read_recipe(recipe, data, tmp_path / "runs")) == 2
    else:
        with pytest.raises(UsageError, match=rf"{name}\.safetensors: not there, and no earlier run"):
            read_recipe(recipe, data, tmp_path / "runs")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"layout"', '"sketch"', r"all\.toml: 'sketch' is no training stage; choose one of .*coarse"),
        ('"c"', '"../c"', "'../c': a name, not a path"),
        ('"c"', '".."', "'..': a name, not a path"),
        ('"c"', '"layout"', "two runs in the folder 'layout'"),
        ('"coarse.toml"', '"c.toml"', r"c\.toml: cannot be read: No such file"),
    ],
)
def test_a_wrong_recipe(old, new, match, recipe, data, tmp_path):
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(UsageError, match=match):
        read_recipe(recipe, data, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_needs_the_networks_before_it(recipe, data, tmp_path):
    text = recipe.read_text()
    run = '{ stage = "mdrnet", config = "mdrnet.toml" }'
    recipe.write_text(text.replace(" }]", " }, " + run + "]"))
    init = '["../c/coarse.safetensors"]'
    (tmp_path / "mdrnet.toml").write_text(CONFIG.format(init=init, layout=LAYOUT))
    with pytest.raises(UsageError, match=r"mdrnet\.toml: init: mdrnet needs the trained parser"):
        read_recipe(recipe, data, tmp_path / "runs")
    (tmp_path / "mdrnet.toml").write_text(CONFIG.format(init=init, layout=""))
    with pytest.raises(UsageError, match=r"mdrnet\.toml: network\.coarse: differs from the run in .*c, which"):
        read_recipe(recipe, data, tmp_path / "runs")


def test_a_recipe_without_runs(recipe, data, tmp_path):
    recipe.write_text("runs = []\n")
    with pytest.raises(UsageError, match="names no runs"):
        read_recipe(recipe, data, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"images"', '"faces"', r"coarse\.toml: .*faces: not there; name the data folder"),
        ('"masks/train"', '"holes"', r"coarse\.toml: .*holes: not there"),
        ("layout.safetensors", "coarse.safetensors", r"coarse\.toml: .*: not there, and no earlier run"),
        ("widths = [8, 8], full", "widths = [8, 16], full", r"coarse\.toml: network\.coarse: differs from the run in"),
        ("[masks]", "[loss]\nstyle = 1.0\n[masks]", r"coarse\.toml: perceptual\.weights"),
        ("[masks]", "[loss]\nintra = 1.0\n[masks]", r"coarse\.toml: loss: unknown term 'intra'"),
        (
            "checkpoint_every = 1",
            'samples = "../samples"',
            r"coarse\.toml: .*samples: no samples there, and no earlier",
        ),
    ],
)
def test_a_later_run_that_lacks_something(old, new, match, recipe, data, tmp_path):
    path = tmp_path / "coarse.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError, match=match):
        read_recipe(recipe, data, tmp_path / "runs")
