"""The chain on the device: only image and mask go in, only the completed image comes out.

Everything is allocated once, for the greatest batch. Two slots of inputs and outputs take turns on three streams, so
that the device brings the next batch, works on this one and takes the last one away at the same time:

    upload      0 | 1 |     | 2 | 3 …
    compute         | 0       | 1       | 2 …
    download                  | 0 |     | 1 | …
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceLostError, ShowfaceError
from ...stages import CHAIN_INPUTS, CHAIN_OUTPUT, OCCLUDER, TENSORS
from ..batches import Chunk, Shapes, chunks
from ..chain import Chain, Faces, Tensors
from .cuda import CudaRuntime
from .device import owned, quietly
from .engine import Engine, Graphs, RunOptions
from .session import EngineStep, HostSession
from .sidecar import EngineFolder, read_sidecar
from .slot import Slot, Streams

logger = logging.getLogger(__name__)
SLOTS = 2
ENDS = (*CHAIN_INPUTS, CHAIN_OUTPUT)
MIN_SCRATCH = 256  # bytes; TensorRT wants an address even where an engine needs none


@dataclass(slots=True)
class DeviceTicket:
    """The :class:`~..chain.Ticket` of faces that were given to the device."""

    completed: NDArray[Any]
    finish: Callable[[DeviceTicket], None]
    error: ShowfaceError | None = None

    def result(self) -> NDArray[Any]:
        """Wait for the faces and return ``completed_image`` [B, 3, H, W]."""
        self.finish(self)
        if self.error is not None:
            raise self.error
        return self.completed


class DeviceChain(Chain):
    """The engines of a bundle on one device. Not for several threads at once; close it, or use it in a ``with``.

    Its ``sizes`` are the batches that are run, ascending, which all engines take; see :func:`~..batches.common_sizes`.

    Raises:
        UsageError: there is not enough memory.
        ShowfaceError: a first batch could not be run.
    """

    overlaps = True

    def __init__(
        self,
        engines: Sequence[Engine],
        sizes: Sequence[int],
        shapes: Shapes,
        cuda: CudaRuntime,
        folder: EngineFolder,
        description: str,
        options: RunOptions | None = None,
    ) -> None:
        options = options or RunOptions()
        self._shapes, self.cuda, self.folder = shapes, cuda, folder
        self.sizes = tuple(sizes)
        self._held: list[tuple[DeviceTicket, Chunk] | None] = [None] * SLOTS
        self._next = 0
        with ExitStack() as stack:
            self._streams = Streams(*(owned(stack, cuda.create_stream(), cuda.destroy_stream) for _ in range(3)))
            for engine in engines:
                engine.choose_profile(self._streams.compute)
            scratch = max(MIN_SCRATCH, *(engine.scratch_bytes for engine in engines))
            address = owned(stack, cuda.allocate(scratch), cuda.free)
            inner = {
                name: self._device_memory(stack, name)
                for engine in engines
                for name in engine.stage.outputs
                if name not in ENDS
            }
            self._slots = [self._make_slot(stack, inner, engines, index) for index in range(SLOTS)]
            for engine in engines:
                for context in engine.contexts:
                    context.set_device_memory(address, scratch)
            first = self._slots[0]
            beside = [EngineStep(e.stage, e.lanes(0), shapes, e.reason) for e in engines if e.stage == OCCLUDER]
            hosts = [
                HostSession(one, self.sizes, shapes, cuda, self._streams.compute, first.addresses, self._idle())
                for one in (*first.engines, *beside)
            ]
            stages = [host for host in hosts if host.stage != OCCLUDER]
            super().__init__(stages, description, "cuda", hosts[-1] if beside else None)
            self.backend = folder.backend
            quietly(stack, options.cache.release)
            # At the end, in reverse: the contexts go first, then what they use, then the memory that they were lent.
            for engine in engines:
                stack.callback(engine.kept.clear)
                stack.callback(engine.slots.clear)
            for slot in self._slots:
                stack.callback(slot.engines.clear)
            for lent in (hosts, stages, beside, self._occluder):
                stack.callback(lent.clear)
            self._wait_first(stack)
            self._warm_up(beside)
            if options.graphs is Graphs.CAPTURE:
                refused = "there is no execution context for each of them; free some device memory"
                if all(engine.capturable(SLOTS) for engine in engines if engine.stage != OCCLUDER):
                    refused = self._capture_graphs(stack)
            else:
                refused = ""
            if refused:
                logger.warning("CUDA graphs are not used: %s", refused)
                self.description += f"; CUDA graphs are not used: {refused}"
            elif options.graphs is not Graphs.OFF:
                self.description += "; with CUDA graphs"
            options.cache.save()
            stack.callback(options.cache.save)
            self._wait_first(stack)  # graphs are given back after their work, too
            self._close = weakref.finalize(self, stack.pop_all().close)

    @property
    def arithmetic(self) -> dict[str, str]:
        """The precision that each engine rounds in, by its sidecar."""
        names = (stage.name for stage in self.folder.bundle.manifest.graphs)
        return {name: read_sidecar(self.folder, name).arithmetic for name in names}

    def _device_memory(self, stack: ExitStack, name: str) -> int:
        return owned(stack, self.cuda.allocate(self._shapes.size(name, self.sizes[-1])), self.cuda.free)

    def _make_slot(self, stack: ExitStack, inner: dict[str, int], engines: Sequence[Engine], index: int) -> Slot:
        cuda, host = self.cuda, {}
        for name in ENDS:
            size = self._shapes.size(name, self.sizes[-1])
            address = owned(stack, cuda.allocate_pinned(size), cuda.free_pinned)
            memory = np.ctypeslib.as_array((ctypes.c_byte * size).from_address(address))
            host[name] = memory.view(TENSORS[name].dtype).reshape(self._shapes.shape(name, self.sizes[-1]))
        ends = {name: self._device_memory(stack, name) for name in ENDS}
        uploaded, computed, downloaded = (owned(stack, cuda.create_event(), cuda.destroy_event) for _ in range(3))
        sessions = [
            EngineStep(engine.stage, engine.lanes(index), self._shapes, engine.reason)
            for engine in engines
            if engine.stage != OCCLUDER
        ]
        return Slot({**inner, **ends}, host, uploaded, computed, downloaded, sessions)

    def _wait_first(self, stack: ExitStack) -> None:
        """Let the stack begin with a wait for all work, in whichever thread it is unwound."""
        for stream in self._streams.every:
            quietly(stack, self.cuda.synchronize, stream)
        quietly(stack, self.cuda.activate)

    def _warm_up(self, beside: Sequence[EngineStep]) -> None:
        """Run every batch in every slot once, and ``beside`` it: libraries load, kernels compile."""
        cuda, compute = self.cuda, self._streams.compute
        for slot in self._slots:
            for name in CHAIN_INPUTS:
                slot.host[name][:] = 0
                size = self._shapes.size(name, self.sizes[-1])
                cuda.upload(slot.addresses[name], slot.host[name].ctypes.data, size, self._streams.upload)
            cuda.record(slot.uploaded, self._streams.upload)
            cuda.wait(compute, slot.uploaded)
            for batch in reversed(self.sizes):
                slot.bind(batch)
                slot.execute(compute)
                cuda.synchronize(compute)
        for engine in beside:
            for batch in reversed(self.sizes):
                engine.bind(batch, self._slots[0].addresses)
                engine.execute(compute)
                cuda.synchronize(compute)

    def _capture_graphs(self, stack: ExitStack) -> str:
        """Capture the work of every batch in every slot, which has been run before; return why there are no graphs."""
        try:
            for slot in self._slots:
                for batch in reversed(self.sizes):
                    slot.bind(batch)
                    graph = slot.capture(batch, self.cuda, self._streams.compute)
                    slot.graphs[batch] = owned(stack, graph, self.cuda.destroy_graph)
        except DeviceLostError:
            raise
        except ShowfaceError as error:
            for slot in self._slots:  # all or none, so that a batch takes as long in one slot as in the other
                slot.graphs.clear()
            return str(error)
        return ""

    def submit(self, images: Faces, masks: Faces) -> DeviceTicket:
        """Give faces to the device; see :meth:`~..chain.Chain.submit`. A third batch waits for the first.

        Each face is written straight into the page-locked memory that is uploaded.

        Raises:
            UsageError: a face's shape or type is wrong, or there are not as many masks.
            DeviceLostError: no later batch can be run either.
            ShowfaceError: CUDA or TensorRT failed, or the chain is closed. Faces given before are not concerned.
        """
        self._check_open()
        self._shapes.check_faces(images, masks)
        self.cuda.activate()
        ticket = DeviceTicket(self._shapes.empty(CHAIN_OUTPUT, len(images)), self._finish)
        try:
            for chunk in chunks(len(images), self.sizes):
                index, self._next = self._next, (self._next + 1) % SLOTS
                self._collect(index)
                self._held[index] = ticket, chunk
                self._slots[index].start(chunk, images, masks, self._shapes, self.cuda, self._streams)
        except BaseException as error:
            lost = self._settle()  # no copy may be under way when its memory is used again
            self._held = [None if held is not None and held[0] is ticket else held for held in self._held]
            if lost is not None and isinstance(error, ShowfaceError) and not isinstance(error, DeviceLostError):
                raise DeviceLostError(f"{error}; {lost}") from error
            raise
        return ticket

    def _settle(self) -> DeviceLostError | None:
        """Wait for all streams after an error, and return whether the device is lost; no other error matters more."""
        lost = None
        for stream in self._streams.every:
            try:
                self.cuda.synchronize(stream)
            except DeviceLostError as error:
                lost = lost or error
            except ShowfaceError:
                pass
        return lost

    def _collect(self, index: int) -> None:
        """Wait for what a slot works on, and hand it over."""
        held, slot = self._held[index], self._slots[index]
        if held is None:
            return
        ticket, chunk = held
        try:
            self.cuda.synchronize_event(slot.downloaded)
        except ShowfaceError as error:
            ticket.error, self._held[index] = error, None
            raise
        ticket.completed[chunk.start : chunk.start + chunk.count] = slot.host[CHAIN_OUTPUT][: chunk.count]
        self._held[index] = None

    def _finish(self, ticket: DeviceTicket) -> None:
        mine = [index for index, held in enumerate(self._held) if held is not None and held[0] is ticket]
        if mine:
            self._check_open()
            self.cuda.activate()
        for index in mine:
            self._collect(index)

    def _idle(self) -> Callable[[], None]:
        """Return what collects every slot, without a reference that would keep the chain alive."""
        chain = weakref.ref(self)

        def wait() -> None:
            alive = chain()
            for index in range(SLOTS if alive is not None else 0):
                alive._collect(index)  # type: ignore[union-attr]

        return wait

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

    def __exit__(self, *_: object) -> None:
        self.close()
