"""``showface validate``: does a candidate compute what the reference computes?"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError, system_errors

from .common import (
    BackendOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    MasksOption,
    app,
    check_writable,
    errors,
    load_extra,
)
from .parity import open_source, print_parity, real_faces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from showface.evaluation.parity.accumulate import Picture
    from showface.evaluation.parity.cases import Case
    from showface.evaluation.parity.compare import Outcome
    from showface.evaluation.parity.sources import Source

CandidateArgument = Annotated[
    Path | None,
    typer.Argument(metavar="CANDIDATE", help="A bundle, saved outputs or a checkpoint; default: the bundle shipped."),
]


@app.command()
def validate(
    context: typer.Context,
    candidate: CandidateArgument = None,
    reference: Annotated[
        Path | None, typer.Option(help="A checkpoint, a bundle or saved outputs; default: the candidate's golden file.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The same as --reference FILE.")] = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
    reference_backend: Annotated[Backend, typer.Option(help="Of a reference that is a bundle.")] = Backend.AUTO,
    reference_device: Annotated[str, typer.Option(help="Of a reference that is a bundle.")] = "auto",
    images: ImagesOption = None,
    masks: MasksOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Compare the first so many faces.")] = None,
    generated: Annotated[bool, typer.Option(help="Compare inputs made on purpose too, and batches.")] = True,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch to compare.")] = 8,
    tolerance: Annotated[
        str | None, typer.Option(help="Judge by float32, tf32, float16 or int8; default: the candidate's precision.")
    ] = None,
    max_abs: Annotated[float | None, typer.Option(min=0, help="Bound on the absolute error.")] = None,
    p99_abs: Annotated[float | None, typer.Option(min=0, help="Bound on its 99th percentile.")] = None,
    min_agreement: Annotated[float | None, typer.Option(min=0, max=1, help="Least share of equal labels.")] = None,
    tie_margin: Annotated[float | None, typer.Option(min=0, help="Largest lead of a label that may flip.")] = None,
    min_psnr_db: Annotated[float | None, typer.Option(help="Least PSNR inside the hole.")] = None,
    save_outputs: Annotated[Path | None, typer.Option(help="Keep the candidate's outputs in this new folder.")] = None,
    save_reference: Annotated[Path | None, typer.Option(help="Keep the reference's outputs in a new folder.")] = None,
    judge_again: Annotated[
        Path | None, typer.Option("--from", help="Judge an earlier run's JSON again; nothing is run.")
    ] = None,
    json_file: JsonOption = None,
    report: Annotated[Path | None, typer.Option(help="Write index.html, results.json and junit.xml here.")] = None,
) -> None:
    """Prove that a candidate computes what a reference computes: each stage alone, then the chain."""
    changes = {
        "max_abs": max_abs,
        "p99_abs": p99_abs,
        "min_agreement": min_agreement,
        "tie_margin": tie_margin,
        "min_psnr_db": min_psnr_db,
    }
    for name, bound in changes.items():
        if bound is not None and not math.isfinite(bound):
            raise UsageError(f"--{name.replace('_', '-')} {bound}: give a finite number")
    check_writable("--json", json_file)
    _check_report(report)
    if judge_again is not None:
        if candidate or reference or checkpoint or images or masks or save_outputs or save_reference:
            raise UsageError("--from judges what was measured; it takes tolerances, --json and --report only")
        _finish(_rejudge(judge_again, tolerance, changes), [], json_file, report)
        return
    if reference is not None and checkpoint is not None:
        raise UsageError("--checkpoint and --reference name the same side; give one")
    threads = context.obj["threads"]
    _check_sides(candidate, backend, device, "")
    _check_sides(reference or checkpoint, reference_backend, reference_device, "reference-")
    source = open_source(candidate, backend, device, threads)
    origin, golden = _open_reference(
        candidate, reference or checkpoint, source, reference_backend, reference_device, threads
    )
    from showface.evaluation.parity.compare import compare_sources
    from showface.evaluation.parity.sources import check_pair
    from showface.evaluation.parity.tolerances import plan_tolerances

    check_pair(origin.identity, source.identity)
    errors.print(f"candidate: {source.identity.description}\nreference: {origin.identity.description}")
    if golden is not None and (images is not None or masks is not None or limit is not None):
        raise UsageError(
            "--images, --masks and --limit need --checkpoint or --reference: only golden inputs have outputs of "
            "their own"
        )
    cases = iter([golden]) if golden else _cases(source, origin, images, masks, limit, max_batch if generated else 0)
    tolerances = plan_tolerances(source.identity.precision, tolerance, changes)
    with ExitStack() as stack:
        keep = _keeper(stack, ((save_reference, origin), (save_outputs, source)))
        outcome = compare_sources(origin, source, cases, tolerances, keep)
    _attribute(outcome, origin, source, candidate)
    _finish(outcome.result, outcome.pictures, json_file, report)


def _check_sides(path: Path | None, backend: str, device: str, prefix: str) -> None:
    """Refuse a backend or a device for a side that is no bundle: PyTorch runs on the CPU, saved outputs nowhere."""
    from showface.evaluation.parity.saved_outputs import OUTPUTS_FILE

    bundle = path is None or not (path.is_file() or (path / OUTPUTS_FILE).is_file())
    if not bundle and (backend != Backend.AUTO or device not in ("auto", "cpu")):
        raise UsageError(f"--{prefix}backend and --{prefix}device are for a bundle; {path} is none")


def _open_reference(
    candidate: Path | None, path: Path | None, source: Source, backend: str, device: str, threads: int | None
) -> tuple[Source, Case | None]:
    """Return the reference, and the golden case where the candidate's golden file is the reference."""
    from showface.evaluation.parity.sources import ChainSource, golden_source

    if path is not None:
        return open_source(path, backend, device, threads), None
    if not isinstance(source, ChainSource):
        raise UsageError(f"{candidate}: has no golden outputs of its own; name what it shall equal with --reference")
    return golden_source(open_bundle(candidate))


def _cases(
    source: Source, origin: Source, images: Path | None, masks: Path | None, limit: int | None, max_batch: int
) -> Iterator[Case]:
    """Return the saved cases where a side is saved, else faces and what is made of the first of them.

    A ``max_batch`` of 0 leaves out what is made.
    """
    from showface.evaluation.parity.cases import array_cases, face_cases, generated_cases
    from showface.evaluation.parity.saved_outputs import SavedSource

    saved = [side for side in (origin, source) if isinstance(side, SavedSource)]
    if saved:
        if images is not None or masks is not None or limit is not None:
            raise UsageError("saved outputs bring their own inputs; leave out --images, --masks and --limit")
        if len(saved) == 2 and set(saved[0].entries) != set(saved[1].entries):
            names = sorted(set(saved[0].entries) ^ set(saved[1].entries))
            raise UsageError(f"{saved[0].folder} and {saved[1].folder}: not of the same cases: {', '.join(names[:5])}")
        yield from saved[0].cases()
        return
    size = source.identity.image_size
    if images is None:
        face, hole = real_faces(images, masks, size)
        yield from array_cases(face[:limit], hole[:limit], "golden")
        if max_batch:
            yield from generated_cases(face, hole, max_batch)
        return
    if masks is None:
        raise UsageError("--images needs --masks")
    first: list[Case] = []
    for case in face_cases(images, masks, size, limit):
        if len(first) < max_batch:
            first.append(case)
        yield case
    if not first:
        return
    import numpy as np

    stacked = [np.concatenate([case.inputs[name] for case in first]) for name in ("image", "mask")]
    yield from generated_cases(stacked[0], stacked[1], max_batch)


def _keeper(stack: ExitStack, wanted: tuple[tuple[Path | None, Source], ...]) -> Any:
    """Return the function that keeps both sides' tensors where that was asked for."""
    from showface.evaluation.parity.saved_outputs import OutputsWriter

    reference, candidate = (
        None if path is None else stack.enter_context(OutputsWriter(path, source.identity)) for path, source in wanted
    )

    def keep(case: Case, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        if reference is not None:
            reference.add(case, ours)
        if candidate is not None:
            candidate.add(case, theirs)

    return keep


def _attribute(outcome: Outcome, origin: Source, source: Source, candidate: Path | None) -> None:
    """Name the module where the error of a failed stage jumps: of a bundle, against a checkpoint."""
    result = outcome.result
    failed = [name for name, figures in result["stages"].items() if not figures["passed"]]
    if not failed or not hasattr(origin, "modules") or (candidate is not None and candidate.is_file()):
        return
    from showface.evaluation.parity.saved_outputs import OUTPUTS_FILE
    from showface.runtime.backends.tensorrt.chain import DeviceChain

    if candidate is not None and (candidate / OUTPUTS_FILE).is_file():
        return
    attribution: Any = load_extra("showface.export.attribution", "export")
    suspects = {name: outcome.suspects[name] for name in failed}
    precision, run_of = result["candidate"]["precision"], None
    chain = getattr(source, "loaded", None)
    if isinstance(chain, DeviceChain):
        debug: Any = load_extra("showface.export.engines.debug", "export")
        errors.print(f"attribution: a debug engine of {' and '.join(failed)} is built")
        run_of = partial(debug.debug_run, chain)
    bundle = open_bundle(candidate)
    result["attribution"] = attribution.attribute_stages(bundle, origin, suspects, precision, run_of)


def _rejudge(path: Path, tolerance: str | None, changes: dict[str, float | None]) -> dict[str, Any]:
    from showface.evaluation.parity.compare import read_result
    from showface.evaluation.parity.tolerances import judge, override, plan_tolerances, stored_tolerances

    result = read_result(path)
    if tolerance is not None:
        tolerances = plan_tolerances(result["candidate"]["precision"], tolerance, changes)
    else:
        tolerances = {name: override(row, changes) for name, row in stored_tolerances(result).items()}
    judged = judge(result, tolerances)
    if "attribution" in judged:
        failed = {name for name, figures in judged["stages"].items() if not figures["passed"]}
        judged["attribution"] = [found for found in judged["attribution"] if found["stage"] in failed]
    return judged


def _check_report(folder: Path | None) -> None:
    """Refuse, before any work, a report that could not be written after it."""
    if folder is None:
        return
    load_extra("showface.evaluation.parity.report", "report")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--report {folder}: exists already; remove it or choose another folder")
    check_writable("--report", folder / "index.html" if folder.is_dir() else folder)


def _finish(result: dict[str, Any], pictures: list[Picture], json_file: Path | None, report: Path | None) -> None:
    """Write and print the result, and exit with 1 where it failed."""
    if json_file is not None:
        with system_errors(UsageError, json_file, "cannot be written"):
            json_file.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if report is not None:
        writer: Any = load_extra("showface.evaluation.parity.report", "report")
        writer.write_report(report, result, pictures)
        errors.print(f"report: {report / 'index.html'}")
    print_parity(result)
    if not result["passed"]:
        raise typer.Exit(1)
