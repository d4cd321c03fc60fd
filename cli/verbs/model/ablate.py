"""``showface ablate``: the paper's ablation tables, trained and measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import extra

from ... import options
from ...app import threads_of
from ...printing import console


def ablate(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="modules, losses or memory: the paper's Table 2, 3 or 4.")],
    config: options.ConfigOption,
    images: options.TestImagesOption,
    masks: options.TestMasksOption,
    data: options.DataOption = Path(),
    output: Annotated[Path, typer.Option(help="A folder for each row goes here.")] = Path("runs/ablation"),
    rows: Annotated[str | None, typer.Option(help="Comma-separated names; default: all rows.")] = None,
    features: options.FeaturesOption = None,
    limit: options.LimitOption = None,
    device: options.TrainDeviceOption = "cpu",
    devices: options.DevicesOption = 1,
) -> None:
    """Train and measure the rows of an ablation table; run again to continue where it stopped."""
    with extra("train"):
        from showface.evaluation.quality.ablation import ablate as ablate_table
        from showface.evaluation.quality.evaluate import EvaluationSet
        from showface.training.process import open_run
    base, fabric = open_run(config, device, devices, threads_of(context))
    chosen = None if rows is None else tuple(rows.split(","))
    text = ablate_table(table, chosen, base, data, output, EvaluationSet(images, masks, features, limit), fabric)
    if fabric.is_global_zero:
        console.print_lines(text)
