"""The chain on the device: only image and mask go in, only the completed image comes out.

Everything is allocated once, for the greatest batch. Two slots of inputs and outputs take turns, so that the
copy stream brings the next batch while the compute stream works on this one:

    copy      up 0 | up 1 | down 0 | up 2 | down 1 | …
    compute        | 0    | 1               | 2    | …
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ShowfaceError, UsageError
from ...stages import CHAIN_INPUTS, CHAIN_OUTPUT, OCCLUDER, TENSORS
from ..chain import Chain, Tensors
from .device import Cuda
from .engine import Engine
from .session import Chunk, EngineSession, Shapes, chunks
from .sidecar import EngineFolder, read_sidecar

SLOTS = 2
ENDS = (*CHAIN_INPUTS, CHAIN_OUTPUT)
MIN_SCRATCH = 256  # bytes; TensorRT wants an address even where an engine needs none


@dataclass(frozen=True, slots=True)
class Slot:
    """One turn's memory: the ends of the chain on the device and, page-locked, on the host; and its events."""

    addresses: dict[str, int]  # of all tensors of the chain; those between the ends are shared by the slots
    host: dict[str, NDArray[Any]]  # of the ends, at the greatest batch
    uploaded: int
    computed: int
    downloaded: int
    graphs: list[int] = field(default_factory=list)  # none or one


class DeviceChain(Chain):
    """The engines of a bundle on one device. Not for several threads at once; close it, or use it in a ``with``.

    Args:
        engines: of the stages, in order, and of the occluder where there is one.
        shapes: of the bundle's tensors.
        cuda: the device.
        folder: where the engines came from.
        description: what runs, where, and why.
        cuda_graph: capture the engines' work for the engines' best batch, and run every batch in parts of that.

    Raises:
        UsageError: there is not enough memory, or the engines' batches do not go together.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        shapes: Shapes,
        cuda: Cuda,
        folder: EngineFolder,
        description: str,
        cuda_graph: bool = False,
    ) -> None:
        self._shapes, self.cuda, self.folder = shapes, cuda, folder
        self._least, self._greatest = common_batches(engines, cuda_graph)
        with ExitStack() as stack:
            self._compute = _owned(stack, cuda.create_stream(), cuda.destroy_stream)
            self._copy = _owned(stack, cuda.create_stream(), cuda.destroy_stream)
            scratch = max(MIN_SCRATCH, *(engine.scratch_bytes for engine in engines))
            address = _owned(stack, cuda.allocate(scratch), cuda.free)
            inner = {
                name: self._device_memory(stack, name)
                for engine in engines
                for name in engine.stage.outputs
                if name not in ENDS
            }
            self._slots = [self._make_slot(stack, inner) for _ in range(SLOTS)]
            sessions = []
            for engine in engines:
                engine.context.set_device_memory(address, scratch)
                batches = (self._least, self._greatest)
                memory = self._slots[0].addresses
                sessions.append(
                    EngineSession(engine.stage, engine.context, batches, shapes, cuda, self._compute, memory)
                )
            stages = [session for session in sessions if session.stage != OCCLUDER]
            occluder = [session for session in sessions if session.stage == OCCLUDER]
            super().__init__(stages, description, "cuda")
            self._engine_sessions, self._occluder = stages, occluder
            for lent in (sessions, stages, occluder):
                stack.callback(lent.clear)  # the contexts go before the memory that they were lent
            stack.callback(self.cuda.synchronize, self._compute)
            stack.callback(self.cuda.synchronize, self._copy)
            stack.callback(self.cuda.activate)  # the first call of the end, in whichever thread
            self._warm_up()
            if cuda_graph:
                self._capture(stack)
                stack.callback(self.cuda.activate)
            self._close = weakref.finalize(self, stack.pop_all().close)

    @property
    def arithmetic(self) -> dict[str, str]:
        """The precision that each engine rounds in, by its sidecar."""
        names = (stage.name for stage in self.folder.bundle.manifest.graphs)
        return {name: read_sidecar(self.folder, name).arithmetic for name in names}

    def _device_memory(self, stack: ExitStack, name: str) -> int:
        return _owned(stack, self.cuda.allocate(self._shapes.size(name, self._greatest)), self.cuda.free)

    def _make_slot(self, stack: ExitStack, inner: dict[str, int]) -> Slot:
        cuda, host = self.cuda, {}
        for name in ENDS:
            size = self._shapes.size(name, self._greatest)
            address = _owned(stack, cuda.allocate_pinned(size), cuda.free_pinned)
            memory = np.ctypeslib.as_array((ctypes.c_byte * size).from_address(address))
            host[name] = memory.view(TENSORS[name].dtype).reshape(self._shapes.shape(name, self._greatest))
        ends = {name: self._device_memory(stack, name) for name in ENDS}
        uploaded, computed, downloaded = (_owned(stack, cuda.create_event(), cuda.destroy_event) for _ in range(3))
        return Slot({**inner, **ends}, host, uploaded, computed, downloaded)

    def _warm_up(self) -> None:
        """Run every slot once: libraries load and kernels are compiled on the first call."""
        shape = {name: self._shapes.shape(name, self._greatest * SLOTS) for name in CHAIN_INPUTS}
        self._complete({name: np.zeros(shape[name], TENSORS[name].dtype) for name in CHAIN_INPUTS})

    def _capture(self, stack: ExitStack) -> None:
        for slot in self._slots:
            self.cuda.begin_capture(self._compute)
            try:
                self._enqueue(slot, self._greatest)
            finally:
                graph = self.cuda.end_capture(self._compute)
            slot.graphs.append(_owned(stack, graph, self.cuda.destroy_graph))

    def complete(self, image: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, H, W]; a batch beyond the profile is split, one below it filled up.

        Args:
            image: [B, 3, H, W] float32 in [-1, 1], B ≥ 1.
            mask: [B, 1, H, W] float32, 1 = hole.

        Raises:
            UsageError: the inputs' shapes or types are wrong.
            ShowfaceError: CUDA or TensorRT failed, or the chain is closed.
        """
        self._check_open()
        pairs = zip(CHAIN_INPUTS, (image, mask), strict=True)
        inputs = {name: self._shapes.checked(name, array) for name, array in pairs}
        if len(image) != len(mask):
            raise UsageError(f"image has a batch of {len(image)}, mask one of {len(mask)}")
        self.cuda.activate()
        try:
            return self._complete(inputs)
        except BaseException:
            self.cuda.synchronize(self._copy)  # no copy may be under way when its memory goes
            self.cuda.synchronize(self._compute)
            raise

    def _complete(self, inputs: Tensors) -> NDArray[Any]:
        total = len(inputs[CHAIN_INPUTS[0]])
        result = np.empty(self._shapes.shape(CHAIN_OUTPUT, total), TENSORS[CHAIN_OUTPUT].dtype)
        parts = list(chunks(total, self._least, self._greatest))
        for k, chunk in enumerate(parts):
            if k >= SLOTS:
                self._collect(k - SLOTS, parts, result)
            self._upload(self._slots[k % SLOTS], chunk, inputs)
            if k >= 1:
                self._download(k - 1, parts)
            self._run(self._slots[k % SLOTS], chunk.batch)
        self._download(len(parts) - 1, parts)
        for k in range(max(0, len(parts) - SLOTS), len(parts)):
            self._collect(k, parts, result)
        return result

    def _upload(self, slot: Slot, chunk: Chunk, inputs: Tensors) -> None:
        """Give the copy stream a chunk; the slot's last result has been collected, so that its memory is free."""
        for name in CHAIN_INPUTS:
            chunk.cut(inputs[name], slot.host[name][: chunk.batch])
            size = self._shapes.size(name, chunk.batch)
            self.cuda.upload(slot.addresses[name], slot.host[name].ctypes.data, size, self._copy)
        self.cuda.record(slot.uploaded, self._copy)

    def _run(self, slot: Slot, batch: int) -> None:
        self.cuda.wait(self._compute, slot.uploaded)
        if slot.graphs:
            self.cuda.launch(slot.graphs[0], self._compute)
        else:
            self._enqueue(slot, batch)
        self.cuda.record(slot.computed, self._compute)

    def _enqueue(self, slot: Slot, batch: int) -> None:
        for session in self._engine_sessions:
            session.enqueue(batch, slot.addresses)

    def _download(self, k: int, parts: Sequence[Chunk]) -> None:
        slot = self._slots[k % SLOTS]
        size = self._shapes.size(CHAIN_OUTPUT, parts[k].batch)
        self.cuda.wait(self._copy, slot.computed)
        self.cuda.download(slot.host[CHAIN_OUTPUT].ctypes.data, slot.addresses[CHAIN_OUTPUT], size, self._copy)
        self.cuda.record(slot.downloaded, self._copy)

    def _collect(self, k: int, parts: Sequence[Chunk], result: NDArray[Any]) -> None:
        slot, chunk = self._slots[k % SLOTS], parts[k]
        self.cuda.synchronize_event(slot.downloaded)
        result[chunk.start : chunk.start + chunk.count] = slot.host[CHAIN_OUTPUT][: chunk.count]

    def run(self, inputs: Tensors, given: Tensors | None = None) -> dict[str, NDArray[Any]]:
        """Return every tensor of the chain on the host; for parity, not for speed."""
        self._check_open()
        return super().run(inputs, given)

    def _check_open(self) -> None:
        if not self._close.alive:
            raise ShowfaceError("the engines have been closed; open the chain again")

    def close(self) -> None:
        """Give every handle back; a second call does nothing."""
        self._close()

    def __enter__(self) -> DeviceChain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def common_batches(engines: Sequence[Engine], cuda_graph: bool) -> tuple[int, int]:
    """Return the least and greatest batch that all engines take; with a graph, their one batch.

    Raises:
        UsageError: there is none.
    """
    least = max(engine.batches[0] for engine in engines)
    greatest = min(engine.batches[2] for engine in engines)
    if least > greatest:
        every = [engine.batches for engine in engines]
        raise UsageError(f"the engines' batches do not go together: {every}; build them again in one call")
    if cuda_graph:
        best = min(max(engines[0].batches[1], least), greatest)
        return best, best
    return least, greatest


def _owned(stack: ExitStack, handle: int, give_back: Any) -> int:
    stack.callback(give_back, handle)
    return handle
