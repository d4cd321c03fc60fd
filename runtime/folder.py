"""Complete a folder of faces, or one file, and account for every input in ``results.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InputError, ShowfaceError, system_errors
from .faces import check_square
from .images import Photo, Pixels, decode_photo, encode_photo, write_file
from .inpainter import Inpainter
from .jobs import Job
from .masks import Hole, MaskSource, hole_of
from .results import Result, append_result, read_results, result_key, written_outputs


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A decoded input that waits for its batch."""

    job: Job
    photo: Photo
    hole: Hole
    result: Result


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
        log: ``results.jsonl`` in the output folder, or None to write none.
        report: called with each result once it is final.
        stopped: asked between batches; true ends the run after the work in flight.

    Returns:
        The results, in the order in which they became final.

    Raises:
        ShowfaceError: the log cannot be read or written.
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
        output = job.output.name if log is None else job.output.relative_to(log.parent).as_posix()
        unknown = Result(job.relative.as_posix(), output, "failed")
        loaded = _load(job, inpainter, masks, overwrite or output in written, unknown, earlier.get(unknown.input))
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
    job: Job, inpainter: Inpainter, masks: MaskSource, replaceable: bool, result: Result, before: Result | None
) -> _Loaded | Result:
    """Read one input; return a result at once where there is nothing to infer.

    Args:
        job: the input.
        inpainter: whose bundle is part of the result's key.
        masks: where the hole comes from.
        replaceable: an existing output may be replaced.
        result: what is to be filled in.
        before: the last result of this input.
    """
    started = time.monotonic()
    name = str(job.source)
    try:
        if job.error is not None:
            raise InputError(job.error)
        with system_errors(InputError, job.source, "cannot be read"):
            data = job.source.read_bytes()
            mask_file = masks.find(job.relative)
            mask_data = None if mask_file is None else mask_file.read_bytes()
            exists = job.output.exists()
        key = result_key(data, mask_data, inpainter.bundle_digest, f"{masks.kind} {masks.color}")
        result = replace(result, key=key)
        if exists:
            same = before is not None and (before.output, before.key) == (result.output, key)
            if same and before is not None and before.status != "failed":
                return replace(result, status="skipped", hole_ratio=before.hole_ratio)
            if not replaceable:
                raise InputError(f"{job.output}: exists and is not of an earlier run; add --overwrite to replace it")
        photo = decode_photo(data, name)
        hole = hole_of(photo, masks, mask_file, name)
        check_square(photo.pixels, name)
        result = replace(result, hole_ratio=float(hole.mean()), seconds=time.monotonic() - started)
        if not hole.any() and job.output.suffix.lower() == job.source.suffix.lower():
            _write(job.output, data)
            return replace(result, status="done", seconds=time.monotonic() - started)
        return _Loaded(job, photo, hole, result)
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
            _write(item.job.output, _encode(pixels, item))
        except InputError as failure:
            error = str(failure)
        seconds = item.result.seconds + share + time.monotonic() - started
        yield replace(item.result, status="failed" if error else "done", error=error, seconds=round(seconds, 4))


def _encode(pixels: Pixels, item: _Loaded) -> bytes:
    try:
        return encode_photo(pixels, item.job.output.suffix, item.photo.lossy, item.photo.profile)
    except InputError as error:
        raise InputError(f"{item.job.output}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    with system_errors(InputError, path, "cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
