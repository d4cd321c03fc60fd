"""Batches as a device takes them: the shapes of a bundle's tensors, and how any number of faces is cut into parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..stages import CHAIN_INPUTS, TENSORS
from .chain import Faces

if TYPE_CHECKING:
    from ..bundle import Bundle


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of a bundle's tensors, and their sizes in bytes, at a batch."""

    image_size: int
    channels: int

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Shapes:
        """Return those of a bundle."""
        return cls(bundle.manifest.image_size, bundle.manifest.code_channels)

    def shape(self, name: str, batch: int) -> tuple[int, ...]:
        """Return the shape of tensor ``name``."""
        return TENSORS[name].resolve(batch, self.image_size, self.channels)

    def size(self, name: str, batch: int) -> int:
        """Return its bytes."""
        return int(np.prod(self.shape(name, batch))) * np.dtype(TENSORS[name].dtype).itemsize

    def empty(self, name: str, batch: int) -> NDArray[Any]:
        """Return an array for it on the host."""
        return np.empty(self.shape(name, batch), TENSORS[name].dtype)

    def checked(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Return ``array``, contiguous, as input ``name``.

        Raises:
            UsageError: its shape or type is not that of the stage table, or its batch is 0.
        """
        batch = len(array) if array.ndim else 0
        if batch == 0 or array.shape != self.shape(name, batch) or array.dtype != TENSORS[name].dtype:
            wanted = ("B ≥ 1", *self.shape(name, 1)[1:])
            raise UsageError(
                f"{name} is {array.dtype} {array.shape}, not {TENSORS[name].dtype} ({', '.join(map(str, wanted))})"
            )
        return np.ascontiguousarray(array)

    def check_faces(self, images: Faces, masks: Faces) -> None:
        """Check the two inputs of the chain, face by face [3, H, W] and [1, H, W]; neither is copied.

        Raises:
            UsageError: a shape or type is not that of the stage table, there is no face, or the counts differ.
        """
        if not len(images) == len(masks) > 0:
            raise UsageError(
                f"image has a batch of {len(images)}, mask one of {len(masks)}; give one face or more and as many masks"
            )
        for name, faces in zip(CHAIN_INPUTS, (images, masks), strict=True):
            shape, dtype = self.shape(name, 1)[1:], TENSORS[name].dtype
            for face in faces:
                if face.shape != shape or face.dtype != dtype:
                    raise UsageError(f"{name} of a face is {face.dtype} {face.shape}, not {dtype} {shape}")


def batch_sizes(least: int, greatest: int) -> tuple[int, ...]:
    """Return the few batches that are run, ascending: the two ends, and the powers of two between them.

    A device prepares itself for each batch that it meets (kernels, algorithms, graphs): few batches are few
    preparations, and a part that is filled up to the next of them costs less than a new one.
    """
    powers = (2**k for k in range(greatest.bit_length()))
    return tuple(sorted({least, greatest, *(p for p in powers if least < p < greatest)}))


def common_sizes(every: Sequence[tuple[int, int, int]], limit: int | None = None) -> tuple[int, ...]:
    """Return the batches that are run, ascending: all engines take them, and none has more faces than ``limit``.

    Of ``every`` engine the least, the best and the greatest batch is given.

    Raises:
        UsageError: there is none.
    """
    least = max(batches[0] for batches in every)
    greatest = min(batches[2] for batches in every)
    if least > greatest:
        raise UsageError(f"the engines' batches do not go together: {every}; build them again in one call")
    return batch_sizes(least, greatest if limit is None else max(least, min(limit, greatest)))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a batch that the engines take: ``count`` faces from ``start``, run as a batch of ``batch``."""

    start: int
    count: int
    batch: int

    def cut(self, faces: Faces, target: NDArray[Any]) -> None:
        """Fill ``target`` [batch, …] with the chunk of ``faces``; its last face is repeated."""
        for place, face in enumerate(faces[self.start : self.start + self.count]):
            target[place] = face
        target[self.count : self.batch] = target[self.count - 1]


def chunks(total: int, sizes: Sequence[int]) -> Iterator[Chunk]:
    """Split a batch into parts of the greatest of ``sizes``; the rest is filled up to the least that holds it."""
    for start in range(0, total, sizes[-1]):
        count = min(sizes[-1], total - start)
        yield Chunk(start, count, next(size for size in sizes if size >= count))
