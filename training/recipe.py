"""A recipe: the runs that make a whole model, one after the other."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.terminal import Terminal

from .checkpoint import read_checkpoint
from .config import NetworkConfig, TrainConfig
from .config_reader import config_from_toml
from .data.sample_cache import RECORD_FILE, read_record
from .process import make_fabric
from .run.loop import train
from .run_files import STATE_FILE, check_origin, load_state
from .tasks.base import with_layout
from .tasks.samples import SamplesTask
from .tasks.table import TASKS


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run as the recipe's file names it: its stage, its config beside that file, its folder (default: the stage)."""

    stage: str
    config: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """What a recipe's file holds: its runs in order."""

    runs: tuple[RunConfig, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a recipe, ready to start; ``output`` is its folder."""

    stage: str
    config: TrainConfig
    output: Path

    @property
    def makes_samples(self) -> bool:
        """Whether it leaves samples instead of a checkpoint."""
        return self.stage == SamplesTask.name

    @property
    def begun(self) -> bool:
        """Whether its folder holds a state to continue from."""
        return (self.output / (RECORD_FILE if self.makes_samples else STATE_FILE)).is_file()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that it leaves."""
        return self.output / f"{self.stage}.safetensors"

    def makes(self, path: Path) -> bool:
        """Return whether it leaves the checkpoint ``path``: its last one, its best, or one of those that it keeps."""
        names = set() if self.makes_samples else {self.stage}
        if self.config.validation is not None:
            names.add(f"{self.stage}-best")
        if self.config.keep_every is not None:
            kept = range(self.config.keep_every, self.config.steps + 1, self.config.keep_every)
            names |= {f"{self.stage}-step{step:07d}" for step in kept}
        return path.resolve() in {(self.output / f"{name}.safetensors").resolve() for name in names}

    @property
    def leaves(self) -> set[str]:
        """The networks in its checkpoints; ``mdrnet`` leaves the whole model."""
        trained = set(TASKS[self.stage].trained)
        return with_layout(trained | {"coarse", "parser"} if self.stage == "mdrnet" else trained, self.config.network)


def read_recipe(path: Path, data: Path, output: Path) -> list[Run]:
    """Read a recipe and all its configs, so that what is wrong with the last run is said before the first one starts.

    Args:
        path: TOML file of a :class:`RecipeConfig`.
        data: folder that the configs' paths are relative to.
        output: folder of the runs' folders.

    Raises:
        UsageError: file, stage or config are wrong, two runs share a folder, or a run needs a file of the data or a
            checkpoint that is neither there nor left by an earlier run.
    """
    runs: list[Run] = []
    for entry in config_from_toml(RecipeConfig, path).runs:
        if entry.stage not in TASKS:
            raise UsageError(f"{path}: {entry.stage!r} is no training stage; choose one of {', '.join(TASKS)}")
        folder = entry.output or entry.stage
        if folder in ("", ".", "..") or Path(folder).name != folder:
            raise UsageError(f"{path}: output {folder!r}: a name, not a path, is expected; it is a folder of {output}")
        run = Run(entry.stage, config_from_toml(TrainConfig, path.parent / entry.config), output / folder)
        if any(run.output == before.output for before in runs):
            raise UsageError(f"{path}: two runs in the folder {folder!r}; give one of them another 'output'")
        try:
            _check_run(run, runs, data)
        except UsageError as error:
            raise UsageError(f"{path.parent / entry.config}: {error.text}", error.argument) from error
        runs.append(run)
    if not runs:
        raise UsageError(f"{path}: names no runs")
    return runs


def _check_run(run: Run, before: list[Run], data: Path) -> None:
    """Refuse a run that cannot be trained by its config, or that lacks data or a checkpoint to start from."""
    task, config = TASKS[run.stage], run.config
    task.check(config)
    if config.samples is not None:
        _check_samples(run, before)
    perceptual = config.perceptual.weights if task.with_features(config) else None
    sources = [path for source in config.sources.values() for path in (source.images, source.labels)]
    weights = (config.backbone, perceptual)
    masks = (config.masks.folder, config.masks.part_labels)
    for name in filter(None, (*sources, *masks, *weights, *task.files(config))):
        if not (data / name).exists():
            raise UsageError(f"{data / name}: not there; name the data folder that holds it", "data")
    loaded: set[str] = set()
    for name in filter(None, (*config.init, config.coordination)):
        path = Path(os.path.normpath(run.output / name))  # the run's own folder is not there yet
        maker = next((other for other in before if other.makes(path)), None)
        if maker is None and not path.is_file():
            raise UsageError(f"{path}: not there, and no earlier run of the recipe leaves it")
        if name in config.init and maker is not None:
            loaded |= maker.leaves
            _check_network(maker, config.network)
        elif name in config.init:
            checkpoint = read_checkpoint(path)
            loaded |= with_layout(set(checkpoint.stages), checkpoint.config)
    task.check_loaded(config, loaded)


def _check_samples(run: Run, before: list[Run]) -> None:
    """Refuse samples that are not there and that no earlier run leaves."""
    assert run.config.samples is not None
    folder = (run.output / run.config.samples).resolve()
    made = any(other.makes_samples and other.output.resolve() == folder for other in before)
    if not made and not (folder / RECORD_FILE).is_file():
        raise UsageError(f"{folder}: no samples there, and no earlier run of the recipe leaves them")


def _check_network(maker: Run, network: NetworkConfig) -> None:
    """Refuse to build the networks that ``maker`` leaves in another way; a layout network may join the coarse one."""
    made = maker.config.network
    for name in maker.leaves - {"coarse", "coarse.layout", "reconstruction", "occluder"}:
        if getattr(made, name) != getattr(network, name):
            raise UsageError(f"network.{name}: differs from the run in {maker.output}, which this one starts from")
    coarse = replace(network.coarse, layout=made.coarse.layout)
    has_layout = "coarse.layout" in maker.leaves
    if (has_layout and coarse != network.coarse) or ("coarse" in maker.leaves and coarse != made.coarse):
        raise UsageError(f"network.coarse: differs from the run in {maker.output}, which this one starts from")


def _finished(run: Run) -> bool:
    """Return whether nothing is left to train; refuse a run that started from checkpoints of before."""
    if not run.begun:
        return False
    if run.makes_samples:
        record = read_record(run.output)
        return record.count == record.total
    state = load_state(run.output, run.config)
    found = {name: read_checkpoint(run.output / name).weights_sha256 for name in state.get("init", ())}
    check_origin(run.output, state, found)
    return bool(state["step"] == run.config.steps) and run.checkpoint.is_file()


def train_all(runs: list[Run], data: Path, resume: bool, device: str, devices: int) -> None:
    """Train the runs that :func:`read_recipe` read, in order; with ``resume`` go on where an earlier call stopped.

    The configs' paths are relative to ``data``. There are ``devices`` processes, one a device, ``cpu`` or ``cuda``.

    Raises:
        UsageError: a run's folder holds a run and ``resume`` is not set, or one of another config.
        Interrupted: on SIGTERM or SIGINT, after the state was saved.
    """
    for run in runs:
        if run.begun and not resume:
            raise UsageError(f"{run.output}: holds a run already; resume it, or choose another folder", "resume")
    console = Terminal()
    for number, run in enumerate(runs, 1):
        fabric = make_fabric(device, devices, run.config.precision)
        finished = _finished(run)
        if fabric.is_global_zero:
            console.print(f"run {number} of {len(runs)}, {run.output}: {'finished before' if finished else run.stage}")
        if not finished:
            train(run.stage, run.config, data, run.output, run.begun, fabric)
        if fabric.is_global_zero and number == len(runs):
            console.print(f"wrote {run.checkpoint}; next: showface export {run.checkpoint} BUNDLE")
