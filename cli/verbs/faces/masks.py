"""``showface masks``: find masks and show them, before anything is completed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import default_bundle
from showface.runtime.errors import UsageError

from ... import options
from ...app import threads_of
from ...printing import errors
from ...signals import catch_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from showface.runtime.batch.item import Item
    from showface.runtime.batch.options import Options
    from showface.runtime.batch.results_log import Result
    from showface.runtime.inpainter import Inpainter

    from ...progress import Tally


def masks(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder (recursive).")],
    folder: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder that gets a mask for each image.")],
    mask_from: options.MaskFromOption = "occlusion",
    mask_margin: options.MaskMarginOption = 6,
    threshold: options.ThresholdOption = 0.5,
    min_hole: options.MinHoleOption = 0.003,
    max_hole: options.MaxHoleOption = 0.5,
    align: Annotated[bool, typer.Option("--align", help="Find the faces of any picture.")] = False,
    face_detector: options.DetectorOption = None,
    landmarks: options.LandmarksOption = None,
    bundle: options.BundleOption = None,
    backend: options.BackendOption = Backend.AUTO,
    device: options.DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace masks that were edited, too.")] = False,
    fail_on_uncertain: options.FailOnUncertainOption = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet, the doubtful ones first; default: MASKS-review.jpg.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write a line about each mask to this file.")] = None,
) -> None:
    """Find the masks of faces and show them; edit them, then: showface inpaint INPUT OUTPUT --masks MASKS."""
    caught = catch_signals()  # before the slow imports
    from showface.runtime.batch.inputs import plan_items
    from showface.runtime.batch.options import Options
    from showface.runtime.batch.sheets.contact_sheet import check_sheet
    from showface.runtime.batch.sheets.review import COLUMNS, HEIGHT, write_review
    from showface.runtime.inpainter import Inpainter

    from ...progress import Tally

    if mask_from == "file":
        raise UsageError("--mask-from file: such masks are there already; use occlusion, class:NAME, alpha or color:#…")
    origin = options.found_mask_source(mask_from, None, mask_margin, threshold, min_hole, max_hole, bundle)
    sheet = sheet or folder.with_name(f"{folder.name}-review.jpg")
    faces = options.alignment_of(align, face_detector, landmarks)
    settings = Options(origin, overwrite=overwrite, alignment=faces, save_masks=folder)
    if folder.suffix and source.is_file() and not folder.is_dir():
        raise UsageError(f"{folder}: MASKS is a folder, also for one image; give a name without a suffix")
    items = plan_items(source, folder, None, ".png", distinct_stems=True)
    check_sheet(sheet, len(items), HEIGHT, COLUMNS)
    given = source, bundle or default_bundle(), landmarks, face_detector
    options.check_pictures({"--sheet": sheet}, overwrite, *given, made=folder)
    sides = {"--json": json_file, "--sheet": sheet}
    options.check_sides(sides, overwrite, *given, ours=options.are_results, made=folder)
    options.make_folder(folder)
    inpainter = Inpainter.from_bundle(bundle, device, threads_of(context), backend)
    tally = Tally(len(items))
    results = _find(items, inpainter, settings, caught, tally)
    found = tally.found_line("with a mask", "empty mask")
    errors.print(f"{found}; {tally.count['failed']} failed")
    lines = "".join(json.dumps(asdict(result)) + "\n" for result in results)
    options.write_text(json_file, lines, overwrite, options.are_results)
    if write_review(sheet, items, results, overwrite):
        errors.print(f"the masks over their faces: {sheet}")
    if caught:
        errors.print(f"stopped after {tally.finished} of {tally.total}; run the same command again to find the others")
        raise typer.Exit(128 + caught[0])
    if tally.count["failed"] or (fail_on_uncertain and tally.doubtful):
        raise typer.Exit(1)


def _find(
    items: Sequence[Item], inpainter: Inpainter, settings: Options, caught: list[int], tally: Tally
) -> list[Result]:
    """Find the masks, and show what becomes of each."""
    from showface.runtime.batch.sheets.review import find_masks

    from ...progress import show_progress

    errors.print(f"using {inpainter.chain.description}")
    results = []
    with show_progress(tally) as display:
        for result in find_masks(items, inpainter, settings, lambda: bool(caught)):
            display(result)
            results.append(result)
    return results
