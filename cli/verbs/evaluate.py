"""``showface evaluate``: how good a model is, beside other methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import extra

from ..app import threads_of
from ..options import (
    DeviceOption,
    FeaturesOption,
    JsonOption,
    LimitOption,
    TestImagesOption,
    TestMasksOption,
    check_picture,
    check_writable,
)


def evaluate(
    context: typer.Context,
    images: TestImagesOption,
    masks: TestMasksOption,
    bundle: Annotated[Path | None, typer.Option(help="Measure this bundle.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure this checkpoint.")] = None,
    results: Annotated[Path | None, typer.Option(help="Measure DIR/<bucket>/<stem>.png of any other method.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Measure telea or navier-stokes.")] = None,
    features: FeaturesOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the best, median and worst faces.")] = None,
) -> None:
    """Measure L1 %, PSNR, SSIM and a Fréchet distance per bucket of hole ratio (paper's Table 1)."""
    check_writable("--json", json_file)
    check_picture("--sheet", sheet)
    with extra("train"):
        from showface.evaluation.quality.evaluate import EvaluationSet, run_evaluation
        from showface.evaluation.quality.methods import MethodChoice
    choice = MethodChoice(bundle, checkpoint, results, baseline)
    test = EvaluationSet(images, masks, features, limit)
    print(run_evaluation(choice, test, device, threads_of(context), json_file, sheet))
