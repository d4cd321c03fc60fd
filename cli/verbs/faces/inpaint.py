"""``showface inpaint``: the main job."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import default_bundle
from showface.runtime.errors import ShowfaceError, UsageError, system_errors

from ... import options
from ...app import threads_of
from ...printing import errors
from ...signals import catch_signals, end_at_signals

if TYPE_CHECKING:
    from showface.runtime.batch.options import Options
    from showface.runtime.batch.results_log import Result
    from showface.runtime.batch.start import FolderRun
    from showface.runtime.faces.masks import MaskSource

    from ...progress import Tally

Found = tuple[int, float, float, float, Path | None]  # margin, threshold, smallest and largest hole, bundle


def inpaint(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder (recursive).")],
    output: Annotated[Path, typer.Argument(help="A folder; for one image also an image name.")],
    masks: options.MasksOption = None,
    mask_from: options.MaskFromOption = "file",
    mask_suffix: options.MaskSuffixOption = None,
    invert_masks: options.InvertOption = False,
    mask_margin: options.MaskMarginOption = 6,
    threshold: options.ThresholdOption = 0.5,
    min_hole: options.MinHoleOption = 0.003,
    max_hole: options.MaxHoleOption = 0.5,
    save_masks: Annotated[Path | None, typer.Option(help="Folder that gets the mask used for each image.")] = None,
    align: Annotated[bool, typer.Option("--align", help="Find the faces of any picture, and complete each.")] = False,
    face_detector: options.DetectorOption = None,
    landmarks: options.LandmarksOption = None,
    output_format: Annotated[str, typer.Option("--format", help="same, jpeg, png, webp, tiff or bmp.")] = "same",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and lossy WebP outputs.")] = 95,
    bundle: options.BundleOption = None,
    backend: options.BackendOption = Backend.AUTO,
    device: options.DeviceOption = "auto",
    cuda_graph: options.CudaGraphOption = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Faces a batch; default: 8, on a CPU 1.")] = None,
    side_by_side: options.WorkersOption = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace files that no earlier run wrote.")] = False,
    verify: Annotated[bool, typer.Option(help="Read all inputs again, not only those that look changed.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End the run at the first failure.")] = False,
    max_failures: Annotated[int | None, typer.Option(min=1, help="End the run after this many failures.")] = None,
    fail_on_uncertain: options.FailOnUncertainOption = False,
    cluster: Annotated[str | None, typer.Option(help="Run on Ray: its address, or local.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of input, mask and result of each face.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes into INPUT, until stopped.")] = False,
) -> None:
    """Complete the holes of faces: aligned squares, or with --align pictures of any kind; - - is a pipe."""
    caught = catch_signals()  # before the slow imports
    from showface.runtime.backends.processors import processors
    from showface.runtime.batch.options import Options, io_threads_for, suffix_of_format
    from showface.runtime.batch.start import Model, plan_run

    from ...pipe import complete_pipe, is_pipe
    from ...progress import Tally

    given = source, masks, bundle or default_bundle(), landmarks, face_detector
    options.check_pictures({"--sheet": sheet}, overwrite, *given)
    found = mask_margin, threshold, min_hole, max_hole, bundle
    origin = _mask_source(source, masks, mask_from, mask_suffix, invert_masks, found)
    suffix = suffix_of_format(output_format)
    model = Model(bundle, backend, device, threads_of(context), cuda_graph, side_by_side)
    if is_pipe(source, output):
        if align or face_detector or landmarks or watch or cluster or sheet or save_masks:
            raise UsageError("a pipe takes one aligned face: no --align, --watch, --cluster, --sheet or --save-masks")
        end_at_signals()
        raise typer.Exit(1 if complete_pipe(origin, suffix, quality, model) and fail_on_uncertain else 0)
    _check_sheet(sheet, origin, save_masks, watch, cluster)
    _check_folders(save_masks, masks, source, output)
    faces = options.alignment_of(align, face_detector, landmarks)
    threads = io_threads_for(processors())
    settings = Options(origin, batch_size or 0, overwrite, quality, faces, save_masks, threads, verify=verify)
    tally, limit, written = Tally(0), 1 if fail_fast else max_failures, True

    def stopped() -> bool:
        return bool(caught) or (limit is not None and tally.count["failed"] >= limit)

    if watch:
        _watch(_watched(source, output, settings, suffix, model, stopped), tally, origin)
    else:
        run = plan_run(source, output, settings, suffix, cluster)
        _check_outputs(sheet, run)
        tally.total = len(run.items)
        written = _run(run, lambda: run.start(model, stopped), tally, sheet)
    _end(caught, tally, limit)
    if not written or (fail_on_uncertain and tally.doubtful):
        raise typer.Exit(1)


def _mask_source(
    source: Path, masks: Path | None, mask_from: str, suffix: str | None, invert: bool, found: Found
) -> MaskSource:
    """Return where the holes come from."""
    beside = masks is None and bool(suffix) and mask_from == "file"
    folder = (source if source.is_dir() else source.parent) if beside else masks
    origin = options.found_mask_source(mask_from, folder, *found)
    if origin.kind != "file" and (invert or suffix is not None):
        raise UsageError(f"--invert-masks and --mask-suffix go with mask files, not with --mask-from {origin.kind}")
    return replace(origin, suffix=suffix or origin.suffix, beside=beside, invert=invert)


def _check_outputs(sheet: Path | None, run: FolderRun) -> None:
    """Refuse a sheet of more faces than its format holds, or with the name of an output."""
    if sheet is None:
        return
    from showface.runtime.batch.sheets.contact_sheet import check_sheet

    check_sheet(sheet, len(run.items))
    if any(os.path.realpath(item.output) == os.path.realpath(sheet) for item in run.items):
        raise UsageError(f"--sheet {sheet}: is the output of an input; choose another name")


def _run(run: FolderRun, start: Callable[[], Iterator[Result]], tally: Tally, sheet: Path | None) -> bool:
    """Show what becomes of each input; return False where the contact sheet could not be written."""
    from ...progress import show_progress

    options.make_folder(run.options.save_masks)
    kept: list[Result] = []
    results = start()
    with show_progress(tally) as display:
        for result in results:
            display(result)
            if sheet is not None:
                kept.append(result)
    where = run.output if run.log is None else run.log
    _print_counts(tally, run.options.masks, f"; see {where}" if where.exists() else "")
    return sheet is None or _write_sheet(sheet, run, kept)


def _print_counts(tally: Tally, origin: MaskSource, where: str = "") -> None:
    from ...progress import OFTEN

    errors.print(tally.counts() + where)
    for text, count in tally.warned.items():
        if count > OFTEN:
            errors.print(f"look at {count} files: {text}")
    if origin.found:
        errors.print(tally.found_line())


def _watched(source: Path, output: Path, settings: Options, *how: Any) -> Iterator[Result]:
    from showface.runtime.batch.watch import watch_folder  # here: a run of one photograph starts sooner without it

    results = watch_folder(source, output, settings, *how)
    options.make_folder(settings.save_masks)
    return results


def _watch(results: Iterator[Result], tally: Tally, origin: MaskSource) -> None:
    """Print each result of a watch in a line as it comes."""
    from ...progress import said

    for result in results:
        tally.total += 1
        tally.add(result)
        why = f": {result.error}" if result.error else ""
        errors.print(f"{result.input}: {result.status}{why}")
        for line in said(replace(result, error=None), tally):
            errors.print(line)
    _print_counts(tally, origin)


def _write_sheet(sheet: Path, run: FolderRun, results: list[Result]) -> bool:
    """Write the contact sheet; where that fails, say so: the work is done all the same."""
    from showface.runtime.batch.sheets import contact_sheet

    ordered = sorted(results, key=lambda result: result.input.split("/"))
    try:
        contact_sheet.write_sheet(
            sheet, run.items, ordered, run.options.masks, run.options.save_masks, run.options.overwrite
        )
    except ShowfaceError as error:
        errors.print(f"error: {error}")
        return False
    return True


def _end(caught: list[int], tally: Tally, limit: int | None) -> None:
    """Leave with the exit code of a run, and say why it ended early."""
    progress = f"after {tally.finished} of {tally.total}; run the same command again to continue"
    if caught:
        errors.print(f"stopped by {signal.Signals(caught[0]).name} {progress}")
        raise typer.Exit(128 + caught[0])
    if tally.count["failed"]:
        if limit is not None and tally.finished < tally.total:
            failures = "1 failure" if tally.count["failed"] == 1 else f"{tally.count['failed']} failures"
            errors.print(f"stopped by {failures} {progress}")
        raise typer.Exit(1)


def _check_sheet(
    sheet: Path | None, origin: MaskSource, save_masks: Path | None, watch: bool, cluster: str | None
) -> None:
    """Refuse a watch that is asked for a sheet or a cluster, and a sheet that would lack the masks that it shows."""
    if watch and (cluster is not None or sheet is not None):
        raise UsageError("--watch does not go with --cluster and --sheet, which know all inputs before they start")
    if sheet is not None and origin.found and save_masks is None:
        raise UsageError("--sheet of masks that are found needs --save-masks DIR, from which it takes them")


def _check_folders(folder: Path | None, masks: Path | None, source: Path, output: Path) -> None:
    """Refuse folders where what is written would become an input or a mask, or stand in the way of something else.

    Raises:
        UsageError: ``folder``, for the masks that are saved, is the folder of inputs, masks or outputs, or lies inside
            the inputs; the outputs would lie among the masks; or the masks are the inputs.
    """
    if masks is not None and os.path.realpath(masks) == os.path.realpath(output):
        raise UsageError(f"{output}: is also what --masks names; choose another output")
    if masks is not None and os.path.realpath(masks) == os.path.realpath(source):
        raise UsageError(f"--masks {masks}: is the input itself; name the masks, or see --mask-from")
    if folder is None:
        return
    with system_errors(UsageError, folder, "cannot be read"):
        if masks is not None and os.path.realpath(folder) == os.path.realpath(masks):
            raise UsageError(f"--save-masks {folder}: is the folder of --masks; choose another")
        if os.path.realpath(folder) == os.path.realpath(output):
            raise UsageError(f"--save-masks {folder}: is the output folder; choose another")
        if source.is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
            raise UsageError(f"--save-masks {folder}: lies inside the input folder {source}; choose another")
