"""The thread of the networks: faces of requests that come together go through them together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..errors import DeviceLostError
from ..faces.tensors import FloatArray
from ..inpainter import BatchRunner, Completed

Answer = Future[NDArray[Any]]


class NetworksFailed(Exception):  # noqa: N818 - the server's fault, not the picture's
    """The networks cannot complete a face; the text is for the log."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    image: FloatArray
    mask: FloatArray
    answer: Answer = field(default_factory=Future)


class Batcher:
    """Completes faces in batches, in a thread of its own. Close it, or use it in a ``with``.

    Args:
        runner: whose ``limit`` is the greatest batch.
        wait: seconds that the first face of a batch waits for others.
        observe: takes the size of each batch.
    """

    def __init__(self, runner: BatchRunner, wait: float, observe: Callable[[int], None]) -> None:
        self._runner, self._wait, self._observe = runner, wait, observe
        self.lost = False  # whether the device answers no more
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="networks", daemon=True)
        self._thread.start()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, image: FloatArray, mask: FloatArray) -> Answer:
        """Return the completed face to come, [3, size, size] as ``image``; ``mask`` is [1, size, size].

        One that is cancelled before its batch costs nothing.
        """
        face = _Waiting(image, mask)
        self._waiting.put(face)
        return face.answer

    def close(self) -> None:
        """Complete what was submitted, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, last = self._gather(first)
            wanted = [face for face in batch if face.answer.set_running_or_notify_cancel()]
            if wanted:
                self._complete(wanted)
            if last:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """Return a batch, and whether it is the last."""
        batch, until = [first], time.monotonic() + self._wait
        while len(batch) < self._runner.limit:
            try:
                face = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if face is None:
                return batch, True
            batch.append(face)
        return batch, False

    def _complete(self, batch: list[_Waiting]) -> None:
        self._observe(len(batch))
        try:
            results: list[Completed] = self._runner.complete([(face.image, face.mask) for face in batch])
        except BaseException as error:  # a thread that died would leave every later request waiting
            self.lost = self.lost or isinstance(error, DeviceLostError)
            for face in batch:
                face.answer.set_exception(NetworksFailed(f"{type(error).__name__}: {error}"))
            return
        for face, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                face.answer.set_exception(NetworksFailed(str(result)))
            else:
                face.answer.set_result(result)
