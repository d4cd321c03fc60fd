"""Complete a folder of faces, or one file, and account for every input in ``results.jsonl``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InputError, ShowfaceError, UsageError
from .faces import check_square
from .images import SUFFIXES, Photo, decode_photo, encode_photo, write_file
from .inpainter import Inpainter
from .masks import Hole, MaskSource, hole_of
from .results import Result, append_result, read_results, result_key, written_outputs


@dataclass(frozen=True, slots=True)
class Job:
    """One input with its place in the output folder; ``error`` where it cannot even be listed."""

    source: Path
    relative: Path
    output: Path
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A decoded input that waits for its batch."""

    job: Job
    data: bytes
    photo: Photo
    hole: Hole
    result: Result


def plan_jobs(source: Path, output: Path, masks: Path | None) -> list[Job]:
    """List the inputs in name order and check that input and output fit together.

    Args:
        source: an image, or a folder that is searched recursively.
        output: a folder; for one image also an image name.
        masks: a mask folder, which is not searched for inputs.

    Raises:
        UsageError: nothing to do, or the output is a file or lies inside the input.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if source.is_file():
        named = output.suffix.lower() in SUFFIXES and not output.is_dir()
        target = output if named else output / source.name
        if target.exists() and target.samefile(source):
            raise UsageError(f"{output}: is the input itself")
        if not named and output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is a file; give a folder or an image name")
        return [Job(source, Path(source.name), target)]
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; the output of a folder must be a folder")
    if output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output}: lies inside the input folder {source}; choose a folder outside it")
    jobs = list(_walk(source, output, masks))
    if not jobs:
        raise UsageError(f"{source}: no images found ({', '.join(SUFFIXES)})")
    return sorted(jobs, key=lambda job: job.relative)


def _walk(source: Path, output: Path, masks: Path | None) -> Iterator[Job]:
    excluded = None if masks is None else masks.resolve()
    errors: list[OSError] = []
    for folder, children, names in os.walk(source, onerror=errors.append):
        place = Path(folder)
        children[:] = [c for c in children if (place / c).resolve() != excluded]
        for name in names:
            path = place / name
            if path.suffix.lower() in SUFFIXES and path.resolve() != excluded:
                relative = path.relative_to(source)
                yield Job(path, relative, output / relative)
    for error in errors:
        path = Path(error.filename)
        relative = path.relative_to(source)
        yield Job(path, relative, output / relative, f"{path}: folder cannot be read: {error.strerror}")


def process(
    jobs: list[Job],
    inpainter: Inpainter,
    masks: MaskSource,
    batch_size: int,
    overwrite: bool,
    log: Path | None,
    report: Callable[[Result], None],
    stopped: Callable[[], bool],
) -> list[Result]:
    """Complete all jobs in batches; a job that fails does not touch the others.

    Args:
        jobs: from :func:`plan_jobs`.
        inpainter: with the bundle to use.
        masks: where the holes come from.
        batch_size: faces a batch.
        overwrite: replace outputs that no earlier line explains.
        log: ``results.jsonl``, or None to write none.
        report: called with each result once it is final.
        stopped: asked between batches; true ends the run after the work in flight.

    Returns:
        The results, in the order in which they became final.
    """
    earlier = {} if log is None else read_results(log)
    written = set() if log is None else written_outputs(log)
    results: list[Result] = []
    waiting: list[_Loaded] = []

    def finish(result: Result) -> None:
        if log is not None:
            append_result(log, result)
        results.append(result)
        report(result)

    for job in jobs:
        if stopped():
            break
        loaded = _load(job, inpainter, masks, overwrite or str(job.output) in written, earlier.get(str(job.source)))
        if isinstance(loaded, Result):
            finish(loaded)
            continue
        waiting.append(loaded)
        if len(waiting) == batch_size:
            for result in _complete(waiting, inpainter, masks.kind == "alpha"):
                finish(result)
            waiting = []
    for result in _complete(waiting, inpainter, masks.kind == "alpha"):
        finish(result)
    return results


def _load(
    job: Job, inpainter: Inpainter, masks: MaskSource, replaceable: bool, before: Result | None
) -> _Loaded | Result:
    """Read one input; return a result at once where there is nothing to infer.

    Args:
        job: the input.
        inpainter: whose bundle is part of the result's key.
        masks: where the hole comes from.
        replaceable: an existing output may be replaced.
        before: the last result of this input.
    """
    started = time.monotonic()
    result = Result(str(job.source), str(job.output), "failed")
    try:
        if job.error is not None:
            raise InputError(job.error)
        try:
            data = job.source.read_bytes()
            mask_file = masks.find(job.relative)
            mask_data = None if mask_file is None else mask_file.read_bytes()
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
        key = result_key(data, mask_data, inpainter.bundle_digest, f"{masks.kind} {masks.color}")
        result = replace(result, key=key)
        if job.output.exists():
            same = before is not None and (before.output, before.key) == (result.output, key)
            if same and before is not None and before.status != "failed":
                return replace(result, status="skipped", hole_ratio=before.hole_ratio)
            if not replaceable:
                raise InputError(f"{job.output}: exists and is not of an earlier run; add --overwrite to replace it")
        photo = decode_photo(data, str(job.source))
        hole = hole_of(photo, masks, mask_file, str(job.source))
        check_square(photo.pixels, str(job.source))
        result = replace(result, hole_ratio=float(hole.mean()), seconds=time.monotonic() - started)
        if not hole.any() and job.output.suffix.lower() == job.source.suffix.lower():
            _write(job.output, data)
            return replace(result, status="done", seconds=time.monotonic() - started)
        return _Loaded(job, data, photo, hole, result)
    except ShowfaceError as error:
        return replace(result, error=str(error), seconds=time.monotonic() - started)


def _complete(batch: list[_Loaded], inpainter: Inpainter, opaque: bool) -> Iterator[Result]:
    """Infer one batch, then write its files one by one."""
    if not batch:
        return
    started = time.monotonic()
    completed = inpainter.complete_batch([(item.photo.pixels, item.hole) for item in batch], opaque)
    share = (time.monotonic() - started) / len(batch)
    for item, pixels in zip(batch, completed, strict=True):
        started = time.monotonic()
        error = None
        try:
            _write(item.job.output, encode_photo(pixels, item.job.output.suffix, item.photo.lossy))
        except InputError as failure:
            error = f"{item.job.output}: {failure}"
        seconds = item.result.seconds + share + time.monotonic() - started
        yield replace(item.result, status="failed" if error else "done", error=error, seconds=round(seconds, 4))


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}") from error

