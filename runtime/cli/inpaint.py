"""``showface inpaint``: the main job."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..backends import Backend
from ..errors import UsageError, system_errors
from .common import BackendOption, BundleOption, DeviceOption, MasksOption, app, check_picture, errors


@app.command()
def inpaint(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder (recursive).")],
    output: Annotated[Path, typer.Argument(help="A folder; for one image also an image name.")],
    masks: MasksOption = None,
    mask_from: Annotated[str, typer.Option(help="file, alpha or color:#RRGGBB.")] = "file",
    bundle: BundleOption = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a batch.")] = 8,
    overwrite: Annotated[bool, typer.Option(help="Replace files that no earlier run wrote.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of input, mask and result of each face.")] = None,
) -> None:
    """Complete the holes of aligned square faces."""
    caught = _catch_signals()  # before the slow imports
    from ..folder import process
    from ..inpainter import Inpainter
    from ..jobs import plan_jobs
    from ..masks import mask_source
    from ..results import RESULTS_FILE, Result

    check_picture("--sheet", sheet)
    mask_origin = mask_source(mask_from, masks)
    jobs = plan_jobs(source, output, masks)
    single = source.is_file() and jobs[0].output == output
    log = None if single else output / RESULTS_FILE
    inpainter = Inpainter.from_bundle(bundle, device, context.obj["threads"], backend)
    errors.print(f"using {inpainter.chain.description}")
    if log is not None:
        with system_errors(UsageError, log, "cannot be written"):
            output.mkdir(parents=True, exist_ok=True)
            log.open("ab+").close()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("inpaint", total=len(jobs))

        def report(result: Result) -> None:
            progress.advance(bar)
            if result.error:
                progress.console.print(f"failed: {result.error}")

        results = process(jobs, inpainter, mask_origin, batch_size, overwrite, log, report, lambda: bool(caught))
    count = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    where = output if log is None else log
    errors.print(", ".join(f"{n} {status}" for status, n in count.items()) + f"; see {where}")
    if sheet is not None:
        from ..sheet import write_sheet

        write_sheet(sheet, jobs, results, mask_origin)
    if caught:
        name = signal.Signals(caught[0]).name
        errors.print(f"stopped by {name} after {len(results)} of {len(jobs)}; run the same command again to continue")
        raise typer.Exit(128 + caught[0])
    if count["failed"]:
        raise typer.Exit(1)


def _catch_signals() -> list[int]:
    """Turn SIGINT and SIGTERM into a request that is honoured between batches."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return caught
