"""``showface diagnose``: what each part of a model is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import UsageError, extra

from ... import options
from ...app import threads_of
from ...printing import console


def diagnose(
    context: typer.Context,
    checkpoint: options.CheckpointArgument,
    images: options.TestImagesOption,
    masks: options.TestMasksOption,
    labelled: Annotated[Path | None, typer.Option(help="Folder of photographs with labels, for the parser.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of their CelebAMask-HQ label maps.")] = None,
    holdout_every: Annotated[int, typer.Option(min=1, help="Hold out every N-th of them, as in training.")] = 10,
    features: options.FeaturesOption = None,
    limit: options.LimitOption = None,
    device: options.DeviceOption = "auto",
    json_file: options.JsonOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Measure what each part of a model is worth: refiner, memory, parser."""
    options.check_sides({"--json": json_file}, overwrite, checkpoint, images, masks, labelled, labels)
    if (labelled is None) != (labels is None):
        raise UsageError("--labelled and --labels go together")
    if labelled is None:
        options.refuse_idle(context, "no parser is measured without --labelled", "holdout_every")
    with extra("train"):
        from showface.evaluation.quality.diagnosis import diagnose_checkpoint, diagnosis_table
        from showface.evaluation.quality.evaluate import EvaluationSet
    pairs = None if labelled is None or labels is None else (labelled, labels)
    test = EvaluationSet(images, masks, features, limit)
    found = diagnose_checkpoint(checkpoint, test, pairs, holdout_every, device, threads_of(context))
    console.print_lines(diagnosis_table(found))
    options.write_text(json_file, found.to_json(), overwrite)
