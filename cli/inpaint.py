"""``showface inpaint``: the main job."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.errors import ShowfaceError, UsageError, system_errors

from .common import (
    BackendOption,
    BundleOption,
    DetectorOption,
    DeviceOption,
    FailOnUncertainOption,
    LandmarksOption,
    MaskFromOption,
    MaskMarginOption,
    MasksOption,
    MaxHoleOption,
    MinHoleOption,
    ThresholdOption,
    app,
    check_occluder,
    check_picture,
    errors,
    found_mask_source,
    load_extra,
)

if TYPE_CHECKING:
    from .progress import Tally


@app.command()
def inpaint(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder (recursive).")],
    output: Annotated[Path, typer.Argument(help="A folder; for one image also an image name.")],
    masks: MasksOption = None,
    mask_from: MaskFromOption = "file",
    mask_margin: MaskMarginOption = 6,
    threshold: ThresholdOption = 0.5,
    min_hole: MinHoleOption = 0.003,
    max_hole: MaxHoleOption = 0.5,
    save_masks: Annotated[Path | None, typer.Option(help="Folder that gets the mask used for each image.")] = None,
    align: Annotated[bool, typer.Option("--align", help="Find the faces of any picture, and complete each.")] = False,
    face_detector: DetectorOption = None,
    landmarks: LandmarksOption = None,
    output_format: Annotated[str, typer.Option("--format", help="same, jpeg, png, webp, tiff or bmp.")] = "same",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and lossy WebP outputs.")] = 95,
    bundle: BundleOption = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Faces a batch; default: 8, on a CPU 1.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that no earlier run wrote.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End the run at the first failure.")] = False,
    max_failures: Annotated[int | None, typer.Option(min=1, help="End the run after this many failures.")] = None,
    fail_on_uncertain: FailOnUncertainOption = False,
    cluster: Annotated[str | None, typer.Option(help="Run on Ray: its address, or local.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of input, mask and result of each face.")] = None,
) -> None:
    """Complete the holes of faces: aligned squares, or with --align pictures of any kind."""
    caught = _catch_signals()  # before the slow imports
    from showface.runtime.batch.contact_sheet import check_sheet, write_sheet
    from showface.runtime.batch.inputs import plan_jobs
    from showface.runtime.batch.options import Alignment, Options, absolute, processors, suffix_of_format, workers
    from showface.runtime.batch.results_log import RESULTS_FILE, Result
    from showface.runtime.batch.run import process
    from showface.runtime.bundle import open_bundle
    from showface.runtime.faces.landmarks import find_detector
    from showface.runtime.inpainter import Inpainter

    from .progress import Tally, printable, show_progress

    check_picture("--sheet", sheet)
    mask_origin = found_mask_source(mask_from, masks, mask_margin, threshold, min_hole, max_hole)
    check_occluder(mask_origin, bundle)
    if not align and (face_detector is not None or landmarks is not None):
        raise UsageError("--face-detector and --landmarks go with --align")
    if sheet is not None and mask_origin.found and save_masks is None:
        raise UsageError("--sheet of masks that are found needs --save-masks DIR, from which it takes them")
    _check_folders(save_masks, masks, source, output)
    suffix = suffix_of_format(output_format)
    detector = find_detector(face_detector) if align and landmarks is None else None
    options = Options(
        mask_origin, batch_size or 0, overwrite, quality, Alignment(detector, landmarks) if align else None,
        save_masks, workers(processors()),
    )  # fmt: skip
    if cluster is not None:
        source, output, options = Path(os.path.abspath(source)), Path(os.path.abspath(output)), absolute(options)

    def say(text: str) -> None:
        errors.print(printable(text))

    jobs = plan_jobs(source, output, masks, suffix, save_masks is not None, say)
    if sheet is not None:
        check_sheet(sheet, len(jobs))
    single = source.is_file() and jobs[0].output == output
    log = None if single else output / RESULTS_FILE
    tally, kept = Tally(len(jobs)), list[Result]()
    limit = 1 if fail_fast else max_failures

    def stopped() -> bool:
        return bool(caught) or (limit is not None and tally.count["failed"] >= limit)

    threads = context.obj["threads"]
    if cluster is None:
        inpainter = Inpainter.from_bundle(bundle, device, threads, backend)
        say(f"using {inpainter.chain.description}")
        options = replace(options, batch_size=batch_size or inpainter.default_batch_size)
        results = process(jobs, inpainter, options, log, stopped, say)
    elif log is None:
        raise UsageError("--cluster completes folders; give a folder as OUTPUT")
    else:
        ray = load_extra("showface.runtime.batch.ray_cluster", "cluster")
        folder = None if bundle is None else Path(os.path.abspath(bundle))
        setup = ray.Setup(folder, open_bundle(bundle).digest, backend, device, threads, output, options)
        results = ray.process_on_cluster(jobs, setup, log, cluster, stopped, say)
    with show_progress(tally) as display:
        for result in results:
            display(result)
            if sheet is not None:
                kept.append(result)
    where = output if log is None else log
    errors.print(", ".join(f"{n} {status}" for status, n in tally.count.items()) + f"; see {printable(str(where))}")
    if mask_origin.found:
        errors.print(tally.found_line())
    broken = False
    if sheet is not None:
        try:
            write_sheet(sheet, jobs, sorted(kept, key=lambda result: result.input.split("/")), mask_origin, save_masks)
        except ShowfaceError as error:
            broken = True
            say(f"error: {error}")
    _end(caught, tally, limit)
    if broken or (fail_on_uncertain and tally.doubtful):
        raise typer.Exit(1)


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
        folder.mkdir(parents=True, exist_ok=True)


def _catch_signals() -> list[int]:
    """Turn SIGINT and SIGTERM into a request that is honoured between batches."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught:  # asked for twice: what is in flight is not waited for, which costs it
            raise SystemExit(128 + number)
        caught.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return caught
