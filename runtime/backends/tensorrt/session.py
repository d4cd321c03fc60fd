"""One engine on the device: its inputs, outputs and batches, bound by the names of the stage table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ShowfaceError, UsageError
from ...stages import TENSORS, Stage
from ..chain import Tensors
from .device import Context, Cuda

Addresses = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of a bundle's tensors, and their sizes in bytes, at a batch."""

    image_size: int
    channels: int

    def shape(self, name: str, batch: int) -> tuple[int, ...]:
        """Return the shape of tensor ``name``."""
        return TENSORS[name].resolve(batch, self.image_size, self.channels)

    def size(self, name: str, batch: int) -> int:
        """Return its bytes."""
        return int(np.prod(self.shape(name, batch))) * np.dtype(TENSORS[name].dtype).itemsize

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


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a batch that the engines take: ``count`` faces from ``start``, run as a batch of ``batch``."""

    start: int
    count: int
    batch: int

    def cut(self, array: NDArray[Any], target: NDArray[Any]) -> None:
        """Fill ``target`` [batch, …] with the chunk of ``array``; its last face is repeated."""
        target[: self.count] = array[self.start : self.start + self.count]
        target[self.count :] = target[self.count - 1]


def chunks(total: int, least: int, greatest: int) -> Iterator[Chunk]:
    """Split a batch into parts that a profile allows; a part smaller than ``least`` is filled up."""
    for start in range(0, total, greatest):
        count = min(greatest, total - start)
        yield Chunk(start, count, max(count, least))


class EngineSession:
    """One engine, with memory lent to it: a :class:`~..session.Session` for parity, and a step of the device chain.

    Args:
        stage: its entry of the stage table.
        context: of the engine; it keeps the engine alive.
        batches: least and greatest batch.
        shapes: of the bundle's tensors.
        cuda: the device.
        stream: that all engines work on.
        addresses: of every tensor of the stage on the device, at the greatest batch.
    """

    def __init__(
        self,
        stage: Stage,
        context: Context,
        batches: tuple[int, int],
        shapes: Shapes,
        cuda: Cuda,
        stream: int,
        addresses: Addresses,
    ) -> None:
        self.stage, self.batches, self.shapes = stage, batches, shapes
        self._context, self._cuda, self._stream, self._addresses = context, cuda, stream, dict(addresses)

    def enqueue(self, batch: int, addresses: Addresses) -> None:
        """Give the engine's work on ``batch`` faces to the stream.

        Args:
            batch: within the profile.
            addresses: where its tensors are now.

        Raises:
            ShowfaceError: TensorRT refuses a shape, an address or the work.
        """
        stage, context = self.stage, self._context
        for name in stage.inputs:
            if not context.set_input_shape(name, self.shapes.shape(name, batch)):
                raise ShowfaceError(f"stage {stage.name}: the engine refuses a batch of {batch} for {name}")
        for name in (*stage.inputs, *stage.outputs):
            if not context.set_tensor_address(name, addresses[name]):
                raise ShowfaceError(f"stage {stage.name}: the engine has no tensor {name}")
        missing = context.infer_shapes()
        if missing:
            raise ShowfaceError(f"stage {stage.name}: the engine wants inputs that no stage has: {', '.join(missing)}")
        for name in stage.outputs:
            shape = tuple(context.get_tensor_shape(name))
            if shape != self.shapes.shape(name, batch):
                raise ShowfaceError(f"stage {stage.name}: the engine's {name} has shape {shape}; build it again")
        if not context.execute_async_v3(self._stream):
            raise ShowfaceError(f"stage {stage.name}: TensorRT could not run the engine; --verbose shows its log")

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Map the stage's inputs to its outputs on the host, by name; a batch beyond the profile is split."""
        arrays = {name: self.shapes.checked(name, inputs[name]) for name in self.stage.inputs}
        total = len(next(iter(arrays.values())))
        if any(len(array) != total for array in arrays.values()):
            raise UsageError(f"stage {self.stage.name}: its inputs differ in their batch")
        self._cuda.activate()
        dtypes = {name: np.dtype(TENSORS[name].dtype) for name in self.stage.outputs}
        results = {name: np.empty(self.shapes.shape(name, total), dtypes[name]) for name in self.stage.outputs}
        for chunk in chunks(total, *self.batches):
            parts = {name: np.empty(self.shapes.shape(name, chunk.batch), a.dtype) for name, a in arrays.items()}
            outputs = {name: np.empty(self.shapes.shape(name, chunk.batch), dtypes[name]) for name in results}
            try:
                for name, part in parts.items():
                    chunk.cut(arrays[name], part)
                    self._cuda.upload(self._addresses[name], part.ctypes.data, part.nbytes, self._stream)
                self.enqueue(chunk.batch, self._addresses)
                for name, output in outputs.items():
                    self._cuda.download(output.ctypes.data, self._addresses[name], output.nbytes, self._stream)
            finally:
                self._cuda.synchronize(self._stream)  # before any of these arrays can go
            for name, output in outputs.items():
                results[name][chunk.start : chunk.start + chunk.count] = output[: chunk.count]
        return results
