"""Threads that read, complete and write at the same time, with bounded queues between them.

    tasks ─► read (N threads, each with a decoder process) ─► complete (1) ─► write (N) ─► results

Batches are filled across files. What the queues hold is bounded in number and in bytes, so that the memory of a run
depends neither on the number of its files nor, beyond a few of them, on their size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from .batch_runner import BatchRunner
from .bounded_queue import Aborted, BoundedQueue
from .read_input import Loaded, Task
from .results_log import Result
from .write_output import Finished

QUEUE_BYTES = 128 * 2**20  # of decoded pixels in one queue, and in one batch


@dataclass(frozen=True, slots=True)
class Work:
    """What the threads do.

    Attributes:
        open_reader: gives each reading thread its function, which turns a task into what the networks need, or into a
            result where nothing is left to do.
        runner: completes faces.
        write: writes one output.
        workers: number of reading and of writing threads.
    """

    open_reader: Callable[[], AbstractContextManager[Callable[[Task], Loaded | Result]]]
    runner: BatchRunner
    write: Callable[[Finished], Result]
    workers: int


class _Shared:
    """The queues of one run, and its first error."""

    def __init__(self, work: Work, next_task: Callable[[], Task | None]) -> None:
        lookahead = max(work.runner.limit, 2)
        self.work = work
        self.loaded = BoundedQueue[Loaded](lookahead, QUEUE_BYTES, work.workers)
        self.finished = BoundedQueue[Finished](lookahead, QUEUE_BYTES, 1)
        # Readers and writers both give results.
        self.results = BoundedQueue[Result](64, 0, 2 * work.workers)
        self.error: BaseException | None = None
        self._next_task = next_task
        self._ended = False
        self._source = threading.Lock()

    def next_task(self) -> Task | None:
        with self._source:
            task = None if self._ended else self._next_task()
            self._ended = task is None
            return task

    def abort(self, error: BaseException | None) -> None:
        if self.error is None:
            self.error = error
        for queue in (self.loaded, self.finished, self.results):
            queue.abort()


def stream(
    next_task: Callable[[], Task | None], work: Work, clock: Callable[[], float]
) -> Generator[Result, None, None]:
    """Yield the result of every task, as it becomes final.

    Args:
        next_task: gives the next task, None at the end; called by one thread at a time.
        work: what is done to it.
        clock: seconds, for the inputs' share of their batch.

    Raises:
        BaseException: whatever a thread raises; the others are ended first.
    """
    shared = _Shared(work, next_task)
    bodies = [_read] * work.workers + [lambda s: _complete(s, clock)] + [_write] * work.workers
    threads = [threading.Thread(target=_guard, args=(body, shared), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    try:
        while (result := shared.results.get()) is not None:
            yield result
    except Aborted:
        pass
    finally:
        shared.abort(None)  # also where the caller stops early; at a regular end all threads are done
        for thread in threads:
            thread.join()
    if shared.error is not None:
        raise shared.error


def _guard(body: Callable[[_Shared], None], shared: _Shared) -> None:
    try:
        body(shared)
    except Aborted:
        pass
    except BaseException as error:
        shared.abort(error)


def _read(shared: _Shared) -> None:
    with shared.work.open_reader() as load:
        while (task := shared.next_task()) is not None:
            loaded = load(task)
            if isinstance(loaded, Result):
                shared.results.put(loaded)
            else:
                shared.loaded.put(loaded, loaded.weight)
    shared.loaded.producer_done()
    shared.results.producer_done()


def _batches(shared: _Shared) -> Iterator[list[Loaded]]:
    """Yield inputs that together have enough faces for a batch, or fill the memory of one."""
    batch: list[Loaded] = []
    while (item := shared.loaded.get()) is not None:
        if not item.faces:
            yield [item]  # has nothing to wait for
            continue
        batch.append(item)
        enough = sum(len(item.faces) for item in batch) >= shared.work.runner.limit
        if enough or sum(item.weight for item in batch) >= QUEUE_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _complete(shared: _Shared, clock: Callable[[], float]) -> None:
    for batch in _batches(shared):
        started = clock()
        faces = [(face.image, face.mask) for item in batch for face in item.faces]
        completed = iter(shared.work.runner.complete(faces))
        share = (clock() - started) / max(1, len(faces))
        for item in batch:
            mine = [next(completed) for _ in item.faces]
            shared.finished.put(Finished(item, mine, share * len(mine)), item.weight)
    shared.finished.producer_done()


def _write(shared: _Shared) -> None:
    while (finished := shared.finished.get()) is not None:
        shared.results.put(shared.work.write(finished))
    shared.results.producer_done()
