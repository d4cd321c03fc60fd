"""A chain of ONNX Runtime sessions over tensors that stay on the device.

Only image and mask go up and only the completed image comes down: 1.8 MB a face instead of 8.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..errors import ShowfaceError
from ..stages import CHAIN_INPUTS, CHAIN_OUTPUT, TENSORS
from .batches import Chunk, Shapes, batch_sizes, chunks
from .chain import Chain, Device, Faces, Ticket
from .onnxruntime import OnnxRuntimeSession, device_errors

GREATEST = 8  # faces a batch; more gain nothing once the device is full, and each batch keeps memory of its own


@dataclass(frozen=True, slots=True)
class BoundBatch:
    """The tensors of one batch on the device, and the sessions' bindings to them."""

    values: dict[str, ort.OrtValue]
    bindings: tuple[tuple[ort.InferenceSession, ort.IOBinding], ...]


class BoundChain(Chain):
    """The stages of a bundle in ONNX Runtime, with every tensor between them on the device.

    The tensors of the occluder, which is beside the chain, come from the host. The device ``cpu`` does the same on the
    host, to compare.

    Raises:
        ShowfaceError: a first batch could not be run, such as for want of a library that is loaded only then.
    """

    overlaps = True

    def __init__(
        self,
        sessions: Sequence[OnnxRuntimeSession],
        shapes: Shapes,
        description: str,
        device: Device,
        index: int = 0,
        occluder: OnnxRuntimeSession | None = None,
    ) -> None:
        super().__init__(sessions, description, device, occluder)
        self._bound, self._shapes, self._index = list(sessions), shapes, index
        self._bound_batches: dict[int, BoundBatch] = {}
        self._sizes = batch_sizes(1, GREATEST)
        self._worker = ThreadPoolExecutor(1, "showface-onnxruntime")  # starts its thread at the first submit
        blank = (np.zeros(shapes.shape(name, 1), TENSORS[name].dtype) for name in CHAIN_INPUTS)
        try:
            self.complete(*blank)
        except ShowfaceError:
            raise
        except Exception as error:  # of a type of ONNX Runtime's
            raise ShowfaceError(f"ONNX Runtime cannot run the chain on {device} device {index}: {error}") from error

    def submit(self, images: Faces, masks: Faces) -> Ticket:
        """Give faces to the device; a thread of the chain works on them in the order in which they come.

        The faces are gathered here, in the caller's thread, while the device may work on those before. They are run in
        parts of at most ``GREATEST``.

        Raises:
            UsageError: a face's shape or type is wrong, or there are not as many masks.
            DeviceLostError: of the ticket; no later batch can be run either.
        """
        self._shapes.check_faces(images, masks)
        parts = [(chunk, self._gathered(chunk, images, masks)) for chunk in chunks(len(images), self._sizes)]
        return self._worker.submit(self._complete, len(images), parts)

    def _gathered(self, chunk: Chunk, images: Faces, masks: Faces) -> dict[str, NDArray[Any]]:
        host = {name: self._shapes.empty(name, chunk.batch) for name in CHAIN_INPUTS}
        for name, faces in zip(CHAIN_INPUTS, (images, masks), strict=True):
            chunk.cut(faces, host[name])
        return host

    def _complete(self, count: int, parts: Sequence[tuple[Chunk, dict[str, NDArray[Any]]]]) -> NDArray[Any]:
        completed = self._shapes.empty(CHAIN_OUTPUT, count)
        with device_errors(self._index if self.device == "cuda" else None):
            for chunk, host in parts:
                completed[chunk.start : chunk.start + chunk.count] = self._run(chunk, host)
        return completed

    def _run(self, chunk: Chunk, host: dict[str, NDArray[Any]]) -> NDArray[Any]:
        bound = self._bound_batches.get(chunk.batch)
        if bound is None:
            bound = self._bound_batches[chunk.batch] = self.bind(chunk.batch)
        for name, array in host.items():
            bound.values[name].update_inplace(array)
        for session, binding in bound.bindings:
            session.run_with_iobinding(binding)  # returns when the device has done its work
        completed: NDArray[Any] = bound.values[CHAIN_OUTPUT].numpy()
        return completed[: chunk.count]

    def bind(self, batch: int) -> BoundBatch:
        """Allocate the tensors of a batch on the device and bind the sessions to them."""
        names = {*CHAIN_INPUTS, *(name for session in self._bound for name in session.stage.outputs)}
        values = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(
                self._shapes.shape(name, batch), np.dtype(TENSORS[name].dtype).type, self.device, self._index
            )
            for name in names
        }
        bindings = []
        for one in self._bound:
            binding = one.session.io_binding()
            for name in one.stage.inputs:
                binding.bind_ortvalue_input(name, values[name])
            for name in one.stage.outputs:
                binding.bind_ortvalue_output(name, values[name])
            bindings.append((one.session, binding))
        return BoundBatch(values, tuple(bindings))

    def close(self) -> None:
        """End the thread; the sessions free themselves."""
        self._worker.shutdown()
