"""Run the networks on a batch of faces so that one face, or too large a batch, does not end the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.chain import Ticket
from ..errors import DeviceLostError, InputError
from ..faces.tensors import Array
from ..inpainter import Inpainter

# What ONNX Runtime, CUDA, TensorRT and the C++ library say when there is no memory left.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|failed to allocate memory|bad_alloc|cudaErrorMemoryAllocation|OutOfMemory", re.I
)
Completed = NDArray[Any] | InputError
Face = tuple[Array, Array]  # image [3, size, size] and mask [1, size, size]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of a backend means that its device has no memory left."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


class Pending:
    """Faces that were given to the networks, in batches: each a ticket, or the error that it was refused with."""

    def __init__(self, faces: Sequence[Face]) -> None:
        self.faces = faces
        self.batches: list[tuple[Sequence[Face], Ticket | Exception]] = []


class BatchRunner:
    """Completes any number of faces in batches of at most ``limit``, which shrinks when memory runs out."""

    def __init__(self, inpainter: Inpainter, limit: int, say: Callable[[str], None]) -> None:
        self.inpainter, self.limit, self.say = inpainter, limit, say

    @property
    def overlaps(self) -> bool:
        """Whether the device works after :meth:`start` has returned, so that more faces can be prepared meanwhile."""
        return self.inpainter.chain.overlaps

    def complete(self, faces: Sequence[Face]) -> list[Completed]:
        """Return each completed face [3, size, size], or the error of one that fails even alone.

        Args:
            faces: ``image`` [3, size, size] and ``mask`` [1, size, size] of each.

        Raises:
            DeviceLostError: no face can be completed any more.
        """
        return self.finish(self.start(faces))

    def start(self, faces: Sequence[Face]) -> Pending:
        """Give faces to the networks; :meth:`finish` returns what :meth:`complete` does.

        Raises:
            DeviceLostError: no face can be completed any more.
        """
        pending = Pending(faces)
        for first in range(0, len(faces), self.limit):
            batch = faces[first : first + self.limit]
            try:
                ticket: Ticket | Exception = self._submit(batch)
            except DeviceLostError:
                raise
            except Exception as error:  # the backends raise types of their own
                ticket = error
            pending.batches.append((batch, ticket))
        return pending

    def finish(self, pending: Pending) -> list[Completed]:
        """Wait for faces that were started; a batch that failed is tried again in smaller parts."""
        done: list[Completed] = []
        for batch, ticket in pending.batches:
            try:
                if isinstance(ticket, Exception):
                    raise ticket
                done.extend(_judged(self.inpainter.collect(ticket)))
            except DeviceLostError:
                raise
            except Exception as error:
                done.extend(self._again(batch, error))
        return done

    def _again(self, batch: Sequence[Face], error: Exception) -> list[Completed]:
        """Complete a batch that failed as a whole."""
        if len(batch) == 1:
            return [InputError(f"the networks failed: {error}")]
        if is_out_of_memory(error):
            half = len(batch) // 2
            if half < self.limit:
                self.limit = half
                self.say(f"out of memory with {len(batch)} faces a batch; going on with {self.limit}")
            return self.complete(batch)
        self.say(f"a batch of {len(batch)} faces failed, trying them one by one: {error}")
        return [result for face in batch for result in self.complete([face])]

    def _submit(self, batch: Sequence[Face]) -> Ticket:
        return self.inpainter.submit([image for image, _ in batch], [mask for _, mask in batch])


def _judged(completed: NDArray[Any]) -> list[Completed]:
    wrong = "the networks returned values that are not finite"
    return [face if np.isfinite(face).all() else InputError(wrong) for face in completed]
