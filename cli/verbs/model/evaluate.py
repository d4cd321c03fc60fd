"""``showface evaluate``: how good a model is beside other methods, and whether its occluder finds what covers faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showface.runtime.bundle import default_bundle
from showface.runtime.errors import UsageError, extra

from ... import options
from ...app import threads_of
from ...printing import console, tables

if TYPE_CHECKING:
    from collections.abc import Mapping


def evaluate(
    context: typer.Context,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of aligned faces.")] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="Folder of ratio bins (00-10 …), white = hole.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Measure this bundle.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure this checkpoint.")] = None,
    results: Annotated[Path | None, typer.Option(help="Measure DIR/<bucket>/<stem>.png of any other method.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Measure telea or navier-stokes; both.")] = None,
    coarse: Annotated[bool, typer.Option("--coarse", help="Measure the coarse face of the model as well.")] = False,
    paper: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows of the paper's Table 1 to print below: celebahq/mdrnets (default), celebahq, ffhq/ict …"
        ),
    ] = None,
    features: options.FeaturesOption = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Folder with vgg16-397923af.pth and LPIPS' vgg.pth of version 0.1.")
    ] = None,
    limit: options.LimitOption = None,
    device: options.DeviceOption = "auto",
    json_file: options.JsonOption = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the best, median and worst faces.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Measure L1 %, PSNR, SSIM, Fréchet and perceptual distances per bucket (paper's Table 1); or: occluder."""
    if context.invoked_subcommand is not None:
        why = f"put the options of {context.invoked_subcommand} behind it"
        options.refuse_idle(context, why, *context.params)
        return
    if images is None or masks is None:
        raise UsageError("give the faces and their masks: --images DIR --masks DIR")
    given = images, masks, bundle, checkpoint, results
    options.check_sides({"--json": json_file}, overwrite, *given)
    options.check_pictures({"--sheet": sheet}, overwrite, *given)
    if not (bundle or checkpoint or features or lpips):
        options.refuse_idle(context, "what is measured runs no network", "device")
    with extra("train"):
        from showface.evaluation.quality.evaluate import EvaluationSet, run_evaluation
        from showface.evaluation.quality.methods import MethodChoice
    choice = MethodChoice(bundle, checkpoint, results, tuple(baseline or ()), coarse)
    test = EvaluationSet(images, masks, features, limit, lpips)
    rows = paper or ["celebahq/mdrnets"]
    found = run_evaluation(choice, test, device, threads_of(context), rows)
    console.print_lines(found.table)
    found.write(json_file, sheet, overwrite)


def evaluate_occluder(
    context: typer.Context,
    bundle: options.BundleOption = None,
    labelled: Annotated[
        list[Path] | None,
        typer.Option("--labelled", help="Folder of pictures and STEM.png labels; several."),
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder with the pictures of other labels.")] = None,
    clean: Annotated[
        list[Path] | None, typer.Option("--clean", help="Folder of aligned faces that nothing covers; several.")
    ] = None,
    without: Annotated[Path | None, typer.Option(help="Text file of stems that do not count as clean.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV: FOLDER/STEM,kind for labelled pictures; STEM,group for clean ones.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Config of the occluder's training: complete the clean faces end to end.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder that the config's paths are relative to.")] = Path(),
    limit: Annotated[int | None, typer.Option(min=1, help="Clean faces to complete end to end; default: all.")] = None,
    threshold: options.ThresholdOption = 0.5,
    min_hole: options.MinHoleOption = 0.003,
    device: options.DeviceOption = "auto",
    json_file: options.JsonOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Measure IoU by kind, what is gone, false alarms by skin lightness, and what a found mask costs."""
    options.check_sides(
        {"--json": json_file}, overwrite, bundle or default_bundle(), *(labelled or []), *(clean or []), groups
    )
    if not labelled and not clean:
        raise UsageError("nothing to measure: give --labelled DIR or --clean DIR")
    if not labelled:
        options.refuse_idle(context, "there is no --labelled", "pictures")
    if not clean:
        options.refuse_idle(context, "there is no --clean", "without", "config")
    if config is None:
        options.refuse_idle(context, "nothing is completed end to end without --config", "data", "limit")
    with extra("train"):
        from showface.evaluation.occlusion.run import OccluderFaces, PastedThings, measure_occluder
    from showface.runtime.faces.occlusion import OcclusionSettings
    from showface.runtime.inpainter import Inpainter

    try:
        settings = OcclusionSettings(threshold=threshold, min_hole=min_hole)
    except ValueError as error:
        raise UsageError(f"--occlusion-threshold, --min-hole: {error}") from error
    inpainter = Inpainter.from_bundle(bundle, device, threads_of(context))
    faces = OccluderFaces(labelled or [], clean or [], pictures, without, groups)
    pasted = None if config is None else PastedThings(config, data, limit)
    result = measure_occluder(inpainter, settings, faces, pasted)
    _print(result)
    options.write_text(json_file, json.dumps(result, indent=1) + "\n", overwrite)


def _print(result: Mapping[str, Any]) -> None:
    from rich.table import Table

    if result["kinds"]:
        table = Table("kind", "faces", "IoU in the face (95 %)", "median", "recall", "gone after growth", "extra area")
        for kind, row in result["kinds"].items():
            iou = "{:.3f} ({:.2f}–{:.2f})".format(*row["iou"])
            rest = (f"{row['recall'][0]:.3f}", f"{row['gone'][0]:.3f}", f"{row['extra'][0]:.3f}")
            table.add_row(kind, str(row["faces"]), iou, f"{row['median_iou']:.3f}", *rest)
        tables.print(table)
    for folder, rates in result["false_alarms"].items():
        table = Table(f"false alarms, {folder}", "faces", "alarms", "rate")
        for name, row in rates.items():
            table.add_row(name, str(row["faces"]), str(row["alarms"]), f"{row['rate']:.1%}")
        tables.print(table)
    if "end_to_end" in result:
        table = Table("end to end", "faces", "PSNR true mask", "found mask", "SSIM true mask", "found mask")
        for kind, row in result["end_to_end"].items():
            figures = (f"{row['true_psnr']:.2f} dB", f"{row['found_psnr']:.2f} dB")
            table.add_row(kind, str(row["faces"]), *figures, f"{row['true_ssim']:.4f}", f"{row['found_ssim']:.4f}")
        tables.print(table)
