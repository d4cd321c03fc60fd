"""Run the networks on a batch of faces so that one face, or too large a batch, does not end the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..faces.tensors import Array
from ..inpainter import Inpainter

# What ONNX Runtime, CUDA, TensorRT and the C++ library say when there is no memory left.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|failed to allocate memory|bad_alloc|cudaErrorMemoryAllocation|OutOfMemory", re.I
)
Completed = NDArray[Any] | InputError


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of a backend means that its device has no memory left."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


class BatchRunner:
    """Completes any number of faces in batches of at most ``limit``, which shrinks when memory runs out."""

    def __init__(self, inpainter: Inpainter, limit: int, say: Callable[[str], None]) -> None:
        self.inpainter, self.limit, self.say = inpainter, limit, say

    def complete(self, faces: Sequence[tuple[Array, Array]]) -> list[Completed]:
        """Return each completed face [3, size, size], or the error of one that fails even alone.

        Args:
            faces: ``image`` [3, size, size] and ``mask`` [1, size, size] of each.
        """
        done: list[Completed] = []
        while len(done) < len(faces):
            batch = faces[len(done) : len(done) + self.limit]
            try:
                done.extend(self._run(batch))
            except Exception as error:
                if len(batch) == 1:
                    done.append(InputError(f"the networks failed: {error}"))
                elif is_out_of_memory(error):
                    self.limit = len(batch) // 2
                    self.say(f"out of memory with {len(batch)} faces a batch; going on with {self.limit}")
                else:
                    self.say(f"a batch of {len(batch)} faces failed, trying them one by one: {error}")
                    for face in batch:
                        done.extend(self._alone(face))
        return done

    def _alone(self, face: tuple[Array, Array]) -> list[Completed]:
        try:
            return self._run([face])
        except Exception as error:  # the backends raise types of their own
            return [InputError(f"the networks failed: {error}")]

    def _run(self, batch: Sequence[tuple[Array, Array]]) -> list[Completed]:
        image = np.stack([image for image, _ in batch])
        mask = np.stack([mask for _, mask in batch])
        return [
            face if np.isfinite(face).all() else InputError("the networks returned values that are not finite")
            for face in self.inpainter.run_networks(image, mask)
        ]
