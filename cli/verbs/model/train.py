"""``showface train``: one stage, or a whole model by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import extra

from ...app import threads_of
from ...options import DataOption, DevicesOption, TrainDeviceOption

# The table of the stages is not imported for it: --help needs no PyTorch.
STAGES_HELP = "parser, layout, coarse, reconstruction, samples, mdrnet, occluder; or all."


def train(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help=STAGES_HELP)],
    config: Annotated[Path, typer.Option("--config", help="TOML file, for all a recipe; see training/configs.")],
    data: DataOption = Path(),
    output: Annotated[Path | None, typer.Option(help="Default: runs/STAGE; runs for all.")] = None,
    device: TrainDeviceOption = "cpu",
    devices: DevicesOption = 1,
    resume: Annotated[bool, typer.Option(help="Continue the run in the output folder.")] = False,
) -> None:
    """Train one stage, or all by a recipe; also: torchrun --nproc-per-node N -m showface.cli train STAGE …."""
    with extra("train"):
        from showface.training.process import open_run, use_threads
        from showface.training.recipe import read_recipe, train_all
        from showface.training.run.loop import train as train_stage
    if stage == "all":
        runs = read_recipe(config, data, output or Path("runs"))
        use_threads(threads_of(context))
        train_all(runs, data, resume, device, devices)
    else:
        run, fabric = open_run(config, device, devices, threads_of(context))
        train_stage(stage, run, data, output or Path("runs") / stage, resume, fabric)
