"""Complete a folder of faces, or one file, and account for every input in ``results.jsonl``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from ..errors import UsageError, system_errors
from ..faces.landmarks import Landmarks, file_digest, find_detector, read_landmarks, yunet
from ..faces.masks import list_masks
from ..images.codec import Pixels
from ..inpainter import Inpainter
from .batch_runner import BatchRunner
from .decoder_process import IsolatedDecoder
from .inputs import Job
from .journal import Journal, discard, end_runs, recover, start_run
from .options import Options
from .pipeline import Work, stream
from .read_input import Loaded, Reader, Task, landmarks_digest
from .results_log import Result, ResultLog
from .write_output import Finished, store

OpenReader = Callable[[Inpainter], AbstractContextManager[Reader]]


def process(
    jobs: Sequence[Job],
    inpainter: Inpainter,
    options: Options,
    log: Path | None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Complete all jobs; a job that fails does not touch the others.

    Args:
        jobs: from :func:`showface.runtime.batch.inputs.plan_jobs`.
        inpainter: with the bundle to use.
        options: what is done to each image.
        log: ``results.jsonl`` in the output folder, or None to write none.
        stopped: asked before each job; true ends the run after the work in flight.
        say: takes a line about what the user should know.

    Yields:
        Each result once it is final and in the log, in no particular order.

    Raises:
        UsageError: the log cannot be opened, or another run holds it.
        ShowfaceError: the log cannot be written any more; the run ends, and can be continued.
    """
    readers = reader_factory(options)
    runner = BatchRunner(inpainter, options.batch_size, say)
    if log is None:
        yield from complete(_next(_tasks(jobs, options, None), stopped), runner, options, readers, None)
        return
    results = open_log(log)
    try:
        with _journal(log.parent) as journal:
            tasks = _next(_tasks(jobs, options, results), stopped)
            # Closed before the journal and the log are, also where this generator is left by an error.
            with closing(complete(tasks, runner, options, readers, journal)) as stream_of_results:
                for result in stream_of_results:
                    results.append(result)
                    yield result
            results.flush()
    finally:
        results.close()


def open_log(path: Path) -> ResultLog:
    """Open ``results.jsonl`` for a run, and take over what killed runs had finished without a line.

    Raises:
        UsageError: it cannot be opened, or another run holds it.
    """
    results = ResultLog(path)
    try:
        end_runs(path.parent)
        for owed in recover(path.parent):
            results.adopt(owed)
        results.flush()
        discard(path.parent)
    except BaseException:
        results.close()
        raise
    return results


def task_of(job: Job, options: Options, results: ResultLog) -> Task:
    """Return a job with what the log knows of it; the log forgets it then."""
    output = job.output.relative_to(results.path.parent).as_posix()
    unknown = Result(job.relative.as_posix(), output, "failed")
    before = results.last.pop(unknown.input, None)
    return Task(job, unknown, before, options.overwrite or output in results.written)


def _tasks(jobs: Sequence[Job], options: Options, results: ResultLog | None) -> Iterator[Task]:
    for job in jobs:
        if results is None:
            unknown = Result(job.relative.as_posix(), job.output.name, "failed")
            yield Task(job, unknown, None, options.overwrite)
        else:
            yield task_of(job, options, results)


def _next(tasks: Iterator[Task], stopped: Callable[[], bool]) -> Callable[[], Task | None]:
    return lambda: None if stopped() else next(tasks, None)


@contextmanager
def _journal(output: Path) -> Iterator[Journal]:
    """Open the journal of a run; it is kept where the run does not end as it should."""
    folder = start_run(output)
    with system_errors(UsageError, output, "cannot be written"):
        journal = Journal(output, folder)
    keep = True
    try:
        yield journal
        keep = False
    finally:
        journal.close(keep)


def reader_factory(options: Options) -> OpenReader:
    """Read what all readers share, and return a function that opens one with a decoder process of its own.

    Raises:
        UsageError: landmarks or face detector cannot be read.
    """
    listing = functools.lru_cache(maxsize=16)(list_masks)
    given, model, digest = None, None, ""
    if options.alignment is not None:
        if options.alignment.landmarks is not None:
            given = read_landmarks(options.alignment.landmarks)
        else:
            model = find_detector(options.alignment.detector)
            digest = file_digest(model)

    def look_up(_: Pixels, name: str) -> list[Landmarks]:
        return (given or {}).get(name, [])

    def faces_digest(name: str) -> str:
        return digest if given is None else landmarks_digest(given, name)

    @contextmanager
    def open_reader(inpainter: Inpainter) -> Iterator[Reader]:
        find_faces: Callable[[Pixels, str], list[Landmarks]] | None = None if given is None else look_up
        if model is not None:
            detect = yunet(model)
            find_faces = lambda pixels, _: detect(pixels)  # noqa: E731
        with IsolatedDecoder() as decoder:
            yield Reader(options, inpainter, decoder.decode, listing, find_faces, faces_digest)

    return open_reader


def complete(
    next_task: Callable[[], Task | None],
    runner: BatchRunner,
    options: Options,
    readers: OpenReader,
    journal: Journal | None,
) -> Generator[Result, None, None]:
    """Yield the result of every task; see :func:`process`, which adds the log."""

    @contextmanager
    def open_reader() -> Iterator[Callable[[Task], Loaded | Result]]:
        with readers(runner.inpainter) as reader:
            yield reader.load

    def write(finished: Finished) -> Result:
        return store(finished, options, journal)

    yield from stream(next_task, Work(open_reader, runner, write, options.workers), time.monotonic)
