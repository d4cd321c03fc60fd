"""``showface diagnose``: what each part of a model is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import UsageError, extra

from ...app import threads_of
from ...options import (
    CheckpointArgument,
    DeviceOption,
    FeaturesOption,
    JsonOption,
    LimitOption,
    OverwriteOption,
    TestImagesOption,
    TestMasksOption,
    check_sides,
    write_text,
)
from ...printing import console


def diagnose(
    context: typer.Context,
    checkpoint: CheckpointArgument,
    images: TestImagesOption,
    masks: TestMasksOption,
    labelled: Annotated[Path | None, typer.Option(help="Folder of photographs with labels, for the parser.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of their CelebAMask-HQ label maps.")] = None,
    holdout_every: Annotated[int, typer.Option(min=1, help="Hold out every N-th of them, as in training.")] = 10,
    features: FeaturesOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure what each part of a model is worth: refiner, memory, parser."""
    check_sides({"--json": json_file}, overwrite, checkpoint, images, masks, labelled, labels)
    if (labelled is None) != (labels is None):
        raise UsageError("--labelled and --labels go together")
    with extra("train"):
        from showface.evaluation.quality.diagnosis import diagnose_checkpoint, diagnosis_table
        from showface.evaluation.quality.evaluate import EvaluationSet
    pairs = None if labelled is None or labels is None else (labelled, labels)
    test = EvaluationSet(images, masks, features, limit)
    found = diagnose_checkpoint(checkpoint, test, pairs, holdout_every, device, threads_of(context))
    console.print_lines(diagnosis_table(found))
    write_text(json_file, found.to_json(), overwrite)
