"""Threads that read, complete and write at the same time, with bounded queues between them.

    items ─► read (N threads, each with a decoder process) ─► complete (M) ─► write (N) ─► results

M is 1 on a GPU, and up to the number of processors on a CPU, where sessions run for several callers at the same time.
Batches are filled across files. What the queues hold is bounded in number and in bytes, so that the memory of a run
depends neither on the number of its files nor, beyond a few of them, on their size.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ..inpainter import BatchRunner, Pending
from .item import Item
from .read_input import InputReader
from .results_log import Result

T = TypeVar("T")
QUEUE_BYTES = 128 * 2**20  # of decoded pixels in one queue, and in one batch


class Aborted(Exception):  # noqa: N818 - no error of its own: another thread has raised that
    """Another thread has failed; the work in this one is no longer wanted."""


class BoundedQueue(Generic[T]):
    """First in, first out; ``put`` waits for room, ``get`` for an item.

    An item that is larger than the whole limit is taken as soon as the queue is empty.
    """

    def __init__(self, count: int, weight: int, producers: int) -> None:
        self._count, self._limit, self._producers = count, weight, producers
        self._items: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: T, weight: int = 0) -> None:
        """Append an item that holds ``weight`` bytes.

        Raises:
            Aborted: the queue was aborted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._has_room(weight))
            if self._aborted:
                raise Aborted
            self._items.append((item, weight))
            self._weight += weight
            self._changed.notify_all()

    def _has_room(self, weight: int) -> bool:
        return not self._items or (len(self._items) < self._count and self._weight + weight <= self._limit)

    def get(self) -> T | None:
        """Return the first item; None once all producers are done and nothing is left.

        Raises:
            Aborted: the queue was aborted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._items or self._producers == 0)
            if self._aborted:
                raise Aborted
            if not self._items:
                return None
            item, weight = self._items.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return item

    def producer_done(self) -> None:
        """Say that one of the producers puts nothing more."""
        with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    def abort(self) -> None:
        """Let every thread that waits, or will wait, at this queue raise :class:`Aborted`."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Work:
    """What the threads do.

    Attributes:
        open_reader: gives each reading thread its reader.
        runner: completes faces.
        write: writes the output of a completed item.
        io_threads: number of reading and of writing threads.
        side_by_side: number of completing threads; more than one where the networks run for several at a time.
    """

    open_reader: Callable[[], AbstractContextManager[InputReader]]
    runner: BatchRunner
    write: Callable[[Item], Result]
    io_threads: int
    side_by_side: int = 1


class _Shared:
    """The queues of one run, and its first error."""

    def __init__(self, work: Work, next_item: Callable[[], Item | None]) -> None:
        lookahead = max(work.runner.limit, 2) * work.side_by_side
        self.work = work
        self.loaded = BoundedQueue[Item](lookahead, QUEUE_BYTES, work.io_threads)
        self.finished = BoundedQueue[Item](lookahead, QUEUE_BYTES, work.side_by_side)
        # Readers and writers both give results.
        self.results = BoundedQueue[Result](64, 0, 2 * work.io_threads)
        self.error: BaseException | None = None
        self._next_item = next_item
        self._ended = False
        self._source = threading.Lock()

    def next_item(self) -> Item | None:
        with self._source:
            item = None if self._ended else self._next_item()
            self._ended = item is None
            return item

    def abort(self, error: BaseException | None) -> None:
        if self.error is None:
            self.error = error
        for queue in (self.loaded, self.finished, self.results):
            queue.abort()


def stream(next_item: Callable[[], Item | None], work: Work) -> Generator[Result, None, None]:
    """Yield the result of every item, as it becomes final.

    ``next_item``, called by one thread at a time, gives None at the end.

    Raises:
        BaseException: whatever a thread raises; the others are ended first.
    """
    shared = _Shared(work, next_item)
    bodies = [_read] * work.io_threads + [_complete] * work.side_by_side + [_write] * work.io_threads
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
    with shared.work.open_reader() as reader:
        while (item := shared.next_item()) is not None:
            item = reader.read(item)
            if item.final:
                shared.results.put(item.result)
            else:
                shared.loaded.put(item, item.weight)
    shared.loaded.producer_done()
    shared.results.producer_done()


def _batches(shared: _Shared) -> Iterator[list[Item]]:
    """Yield inputs that together have enough faces for a batch, or fill the memory of one."""
    batch: list[Item] = []
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


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Inputs whose faces the device has been given, and the seconds that this took."""

    batch: list[Item]
    pending: Pending
    seconds: float


def _complete(shared: _Shared) -> None:
    """Complete batch by batch; where the device works by itself, the next batch is prepared before one is fetched."""
    runner, submitted = shared.work.runner, deque[_Submitted]()
    for batch in _batches(shared):
        started = time.monotonic()
        pending = runner.start([(face.image, face.mask) for item in batch for face in item.faces])
        submitted.append(_Submitted(batch, pending, time.monotonic() - started))
        if len(submitted) > int(runner.overlaps):
            _hand_over(shared, submitted.popleft())
    while submitted:
        _hand_over(shared, submitted.popleft())
    shared.finished.producer_done()


def _hand_over(shared: _Shared, one: _Submitted) -> None:
    started = time.monotonic()
    completed = iter(shared.work.runner.finish(one.pending))
    share = (one.seconds + time.monotonic() - started) / max(1, sum(len(item.faces) for item in one.batch))
    for item in one.batch:
        mine = [next(completed) for _ in item.faces]
        spent = replace(item.result, seconds=round(item.result.seconds + share * len(mine), 4))
        shared.finished.put(replace(item, completed=mine, result=spent), item.weight)


def _write(shared: _Shared) -> None:
    while (item := shared.finished.get()) is not None:
        shared.results.put(shared.work.write(item))
    shared.results.producer_done()
