"""Make the samples of the stage ``samples``, batch by batch; a run that was stopped goes on."""

from __future__ import annotations

from pathlib import Path

from lightning.fabric import Fabric

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.terminal import Terminal

from ..config import TrainConfig
from ..data.augment import augment
from ..data.dataset import open_feed
from ..data.sample_cache import RECORD_FILE, Record, create_arrays, read_record
from .samples import SamplesTask


def make_samples(config: TrainConfig, data: Path, output: Path, resume: bool, fabric: Fabric) -> None:
    """Fill ``output`` with as many samples as the steps of the phases have faces, half a megabyte each at 256².

    All phases have one resolution, and ``fabric`` has one process. With ``resume`` it goes on where it was stopped.

    Raises:
        UsageError: config or data are not usable, ``output`` holds samples and ``resume`` is not set, or the
            networks behind them are others.
    """
    if fabric.world_size > 1:
        raise UsageError("samples are made by one process; give it one device", "devices")
    size = config.network.image_size
    if any((phase.resize, phase.crop) != (size, None) for phase in config.phases.values()):
        raise UsageError(f"phases: samples are whole faces of network.image_size = {size}; leave resize and crop out")
    if (output / RECORD_FILE).is_file() and not resume:
        raise UsageError(f"{output}: holds samples already; resume the run, or choose another folder", "resume")
    output.mkdir(parents=True, exist_ok=True)
    task = SamplesTask(config, data, output)
    task.learn()
    task.to(fabric.device)
    total = sum(phase.steps * phase.batch_size for phase in config.phases.values())
    names = sorted({name.split(".")[0] for name in task.loaded} & {"coarse", "parser"})
    digests = {name: task.network_digests[name] for name in names}
    record = read_record(output) if (output / RECORD_FILE).is_file() else Record(0, total, size, digests)
    if (record.total, record.size, dict(record.digests)) != (total, size, digests):
        raise UsageError(f"{output}: has samples of another config or other networks; choose another folder", "output")
    arrays = create_arrays(output, total, size)
    feed = open_feed(config, data, False, fabric.device)
    console, count = Terminal(), 0
    for step in range(config.steps):
        phase = config.phase_at(step)
        place, count = slice(count, count + phase.batch_size), count + phase.batch_size
        if count <= record.count:
            continue
        sample = augment(feed.batch(step, phase.batch_size), config.augment, phase, (config.seed, step), fabric.device)
        with fabric.autocast():
            made = task.arrays(sample)
        for name, values in made.items():
            arrays[name][place] = values.cpu().numpy()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            Record(count, total, size, digests).write(output)
            console.print(f"{count} of {total} samples")
