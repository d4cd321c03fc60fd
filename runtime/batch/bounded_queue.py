"""A queue between threads that is bounded by the number and by the size of what it holds."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


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
