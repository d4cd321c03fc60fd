"""A folder run in the order of its work.

Each item is read (file, hole, faces), completed by the networks in a batch with others, and written; then its result is
final, and gets its line in ``results.jsonl``. Before an output gets its name, the journal says what it will be, so that
a run that is killed at any moment is continued without a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import UsageError, system_errors
from ..files import Write, write_flushed
from ..inpainter import BatchRunner, Inpainter
from .item import Item
from .journal import Journal, discard, end_runs, recover, start_run
from .options import Options
from .pipeline import Work, stream
from .read_input import InputReader, InputReaders
from .results_log import Result, ResultLog
from .write_output import write_output

OpenReader = Callable[[Inpainter], AbstractContextManager[InputReader]]


def complete_folder(
    items: Sequence[Item],
    inpainter: Inpainter,
    options: Options,
    log: Path | None,
    stopped: Callable[[], bool] = lambda: False,
    write: Write = write_flushed,
    readers: InputReaders | None = None,
) -> Iterator[Result]:
    """Complete all items; one that fails does not touch the others.

    Args:
        items: from :func:`showface.runtime.batch.inputs.plan_items`.
        inpainter: with the bundle to use.
        options: what is done to each image.
        log: ``results.jsonl`` in the output folder, or None to write none.
        stopped: asked before each item; true ends the run after the work in flight.
        write: writes a whole file of the output folder to the disk.
        readers: open the inputs' readers; closed at the end.

    Yields:
        Each result once it is final and in the log, in no particular order.

    Raises:
        UsageError: the log cannot be opened, or another run holds it.
        ShowfaceError: the log cannot be written any more; the run ends, and can be continued.
    """
    readers, runner = readers or InputReaders(options), BatchRunner(inpainter, options.batch_size)
    with closing(readers):
        if log is None:
            named = (replace(item, result=unknown(item), replace=options.overwrite) for item in items)
            yield from complete_items(_next(named, stopped), runner, options, readers.open, None)
            return
        results = open_log(log)
        try:
            with _journal(log.parent, write) as journal:
                known = (with_history(item, options, results) for item in items)
                # Closed before the journal and the log are, also where this generator is left by an error.
                results_of_run = complete_items(_next(known, stopped), runner, options, readers.open, journal)
                with closing(results_of_run):
                    for result in results_of_run:
                        results.append(result)
                        yield result
                results.flush()
        finally:
            results.close()


def complete_items(
    next_item: Callable[[], Item | None],
    runner: BatchRunner,
    options: Options,
    open_reader: OpenReader,
    journal: Journal | None,
) -> Generator[Result, None, None]:
    """Yield the result of every item: read, completed in batches, written; see :func:`complete_folder`."""
    work = Work(
        open_reader=lambda: open_reader(runner.inpainter),
        runner=runner,
        write=partial(write_output, options=options, journal=journal),
        io_threads=options.io_threads,
        side_by_side=options.side_by_side,
    )
    yield from stream(next_item, work)


def open_log(path: Path) -> ResultLog:
    """Open ``results.jsonl`` for a run, and take over what killed runs had finished without a line.

    Raises:
        UsageError: it cannot be opened, or another run holds it.
    """
    results = ResultLog(path)
    try:
        end_runs(path.parent)
        for owed in recover(path.parent, results.owes):  # the outputs of the others are not read
            results.adopt(owed)
        results.flush()
        discard(path.parent)
    except BaseException:
        results.close()
        raise
    return results


def unknown(item: Item) -> Result:
    """Return the result of an item of which nothing is known yet; its output is named alone."""
    return Result(item.relative.as_posix(), item.output.name, "failed")


def with_history(item: Item, options: Options, results: ResultLog) -> Item:
    """Return an item with what the log knows of it; the log forgets it then."""
    output = item.output.relative_to(results.path.parent).as_posix()
    before = results.last.pop(item.relative.as_posix(), None)
    explained = options.overwrite or output in results.written
    return replace(item, result=replace(unknown(item), output=output), before=before, replace=explained)


def _next(items: Iterator[Item], stopped: Callable[[], bool]) -> Callable[[], Item | None]:
    return lambda: None if stopped() else next(items, None)


@contextmanager
def _journal(output: Path, write: Write) -> Iterator[Journal]:
    """Open the journal of a run; it is kept where the run does not end as it should."""
    folder = start_run(output)
    with system_errors(UsageError, output, "cannot be written"):
        journal = Journal(output, folder, write)
    keep = True
    try:
        yield journal
        keep = False
    finally:
        journal.close(keep)
