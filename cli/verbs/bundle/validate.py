"""``showface validate``: does a candidate compute what the reference computes?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import UsageError, extra

from ... import options
from ...app import threads_of
from ...printing import errors, print_parity

if TYPE_CHECKING:
    from showface.evaluation.parity.accumulate import ComparedPicture
    from showface.evaluation.parity.validate import ValidatedPair

CandidateArgument = Annotated[
    Path | None,
    typer.Argument(metavar="CANDIDATE", help="A bundle, saved outputs or a checkpoint; default: the bundle shipped."),
]
ReferenceOption = Annotated[
    Path | None, typer.Option(help="A checkpoint, a bundle or saved outputs; default: the candidate's golden file.")
]
ToleranceOption = Annotated[
    str | None, typer.Option(help="Judge by float32, tf32, float16 or int8; default: the candidate's precision.")
]
JudgeAgainOption = Annotated[
    Path | None, typer.Option("--from", help="Judge an earlier run's JSON again; nothing is run.")
]

MEASURED = "--from judges what was measured; it takes tolerances, --json and --report only"
OF_A_RUN = (
    "reference", "checkpoint", "backend", "device", "cuda_graph", "reference_backend", "reference_device",
    "images", "masks", "limit", "generated", "max_batch", "save_outputs", "save_reference",
)  # fmt: skip


def validate(
    context: typer.Context,
    candidate: CandidateArgument = None,
    reference: ReferenceOption = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The same as --reference FILE.")] = None,
    backend: options.BackendOption = Backend.AUTO,
    device: options.DeviceOption = "auto",
    cuda_graph: options.CudaGraphOption = False,
    reference_backend: Annotated[Backend, typer.Option(help="Backend of a reference bundle.")] = Backend.AUTO,
    reference_device: Annotated[str, typer.Option(help="Device of a reference bundle.")] = "auto",
    images: options.ImagesOption = None,
    masks: options.MasksOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Compare the first so many faces.")] = None,
    generated: Annotated[bool, typer.Option(help="Compare inputs made on purpose too, and batches.")] = True,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch to compare.")] = 8,
    tolerance: ToleranceOption = None,
    max_abs: Annotated[float | None, typer.Option(min=0, help="Bound on the absolute error.")] = None,
    p99_abs: Annotated[float | None, typer.Option(min=0, help="Bound on its 99th percentile.")] = None,
    min_agreement: Annotated[float | None, typer.Option(min=0, max=1, help="Least share of equal labels.")] = None,
    tie_margin: Annotated[float | None, typer.Option(min=0, help="Largest lead of a label that may flip.")] = None,
    min_psnr_db: Annotated[float | None, typer.Option(help="Least PSNR inside the hole.")] = None,
    save_outputs: Annotated[Path | None, typer.Option(help="Keep the candidate's outputs in this new folder.")] = None,
    save_reference: Annotated[Path | None, typer.Option(help="Keep the reference's outputs in a new folder.")] = None,
    judge_again: JudgeAgainOption = None,
    json_file: options.JsonOption = None,
    overwrite: options.OverwriteOption = False,
    report: Annotated[Path | None, typer.Option(help="Write index.html, results.json and junit.xml here.")] = None,
) -> None:
    """Prove that a candidate computes what a reference computes: each stage alone, then the chain."""
    from showface.evaluation.parity import validate as library

    names = ("max_abs", "p99_abs", "min_agreement", "tie_margin", "min_psnr_db")
    changes = dict(zip(names, (max_abs, p99_abs, min_agreement, tie_margin, min_psnr_db), strict=True))
    _check_bounds(changes)
    files = candidate or default_bundle(), reference, checkpoint, images, masks, judge_again
    options.check_sides({"--json": json_file}, overwrite, *files)
    _check_report(report, files)
    bounds = library.Bounds(tolerance, changes)
    if judge_again is not None:
        if candidate is not None:
            raise UsageError(f"{candidate}: {MEASURED}")
        options.refuse_idle(context, MEASURED, *OF_A_RUN)
        _finish(library.judge_again(judge_again, bounds), [], json_file, report, overwrite)
        return
    if reference is not None and checkpoint is not None:
        raise UsageError("--checkpoint and --reference name the same side; give one")
    if reference is None and checkpoint is None:
        sides = "a bundle is compared with its own golden outputs; add --reference"
        options.refuse_idle(context, sides, "reference_backend", "reference_device", "generated", "max_batch")
    if not generated:
        options.refuse_idle(context, "with --no-generated no batches are compared", "max_batch")
    given = library.Side(candidate, backend, device, cuda_graph)
    path = reference or checkpoint
    origin = None if path is None else library.Side(path, reference_backend, reference_device)
    inputs = library.Inputs(images, masks, limit, max_batch if generated else 0)
    keep = save_reference, save_outputs
    found = library.validate(given, origin, inputs, bounds, threads_of(context), keep)
    if origin is not None and origin.kind == "checkpoint" and given.kind == "bundle":
        _attribute(found, candidate)
    _finish(found.outcome.result, found.outcome.pictures, json_file, report, overwrite)


def _check_bounds(changes: Mapping[str, float | None]) -> None:
    for name, bound in changes.items():
        if bound is not None and not math.isfinite(bound):
            raise UsageError(f"--{name.replace('_', '-')} {bound}: give a finite number")


def _attribute(found: ValidatedPair, candidate: Path | None) -> None:
    """Name the module where the error of a failed stage jumps."""
    if all(figures["passed"] for figures in found.outcome.result["stages"].values()):
        return
    with extra("export"):
        from showface.export.attribution import attribute_failures
    attribute_failures(found, open_bundle(candidate))


def _check_report(folder: Path | None, given: Sequence[Path | None]) -> None:
    """Refuse, before any work, a report that could not be written after it."""
    if folder is None:
        return
    with extra("report"):
        import showface.evaluation.parity.report  # noqa: F401 - missing packages are named before the work
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--report {folder}: exists already; remove it or choose another folder")
    options.check_sides({"--report": folder / "index.html" if folder.is_dir() else folder}, False, *given)


def _finish(
    result: Mapping[str, Any],
    pictures: Sequence[ComparedPicture],
    json_file: Path | None,
    report: Path | None,
    overwrite: bool,
) -> None:
    """Write and print the result, and exit with 1 where it failed."""
    print_parity(result)
    options.write_text(json_file, json.dumps(result, indent=2, allow_nan=False) + "\n", overwrite)
    if report is not None:
        from showface.evaluation.parity.report import write_report

        write_report(report, result, pictures)
        errors.print(f"report: {report / 'index.html'}")
    if not result["passed"]:
        raise typer.Exit(1)
