"""One engine on the device: its inputs, outputs and batches, bound by the names of the stage table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...errors import ShowfaceError, UsageError
from ...stages import Stage
from ..batches import Shapes, chunks
from ..chain import Tensors
from .cuda import CudaRuntime
from .device import Context

Addresses = Mapping[str, int]


@dataclass(slots=True)
class Lane:
    """An execution context, and what it is used for.

    Attributes:
        context: of the engine; it keeps the engine alive.
        profile: of the engine, that the context works in.
        batches: that it is run with.
        bound: the batch and the addresses that it has been told; 0 and none before.
    """

    context: Context
    profile: int
    batches: tuple[int, ...]
    bound: tuple[int, dict[str, int]] = (0, {})


class EngineStep:
    """One engine, with memory lent to it: a step of the device chain.

    Its lanes together take every batch that is run; ``reason`` returns what TensorRT has said since it was last asked.
    """

    def __init__(self, stage: Stage, lanes: Sequence[Lane], shapes: Shapes, reason: Callable[[], str]) -> None:
        self.stage = stage
        self._lanes = {batch: lane for lane in lanes for batch in lane.batches}
        self._lane = lanes[0]
        self._shapes, self._reason = shapes, reason

    @property
    def context(self) -> Context:
        """The context of the batch that was bound last."""
        return self._lane.context

    def bind(self, batch: int, addresses: Addresses) -> None:
        """Set the shapes and addresses of the next work, one of the lanes' batches; what is set already is left alone.

        Raises:
            ShowfaceError: TensorRT refuses a shape or an address.
        """
        self._lane = lane = self._lanes[batch]
        stage, context = self.stage, lane.context
        wanted = {name: addresses[name] for name in (*stage.inputs, *stage.outputs)}
        if lane.bound == (batch, wanted):
            return
        lane.bound = 0, {}  # half of them may be set if it fails
        try:
            for name in stage.inputs:
                if not context.set_input_shape(name, self._shapes.shape(name, batch)):
                    raise self._error(f"the engine refuses a batch of {batch} for {name}")
            for name, address in wanted.items():
                if not context.set_tensor_address(name, address):
                    raise self._error(f"the engine has no tensor {name}")
            missing = context.infer_shapes()
        except (RuntimeError, TypeError) as error:  # what the bindings raise where a shape cannot be inferred
            raise self._error(f"TensorRT cannot infer the shapes of a batch of {batch}: {error}") from error
        if missing:
            raise self._error(f"the engine wants inputs that no stage has: {', '.join(missing)}")
        for name in stage.outputs:
            shape = tuple(context.get_tensor_shape(name))
            if shape != self._shapes.shape(name, batch):
                raise self._error(f"the engine's {name} has shape {shape}; build it again")
        lane.bound = batch, wanted

    def execute(self, stream: int) -> None:
        """Give the engine's work to a stream.

        Raises:
            ShowfaceError: TensorRT refuses it.
        """
        try:
            done = self.context.execute_async_v3(stream)
        except (RuntimeError, TypeError) as error:
            raise self._error(f"TensorRT could not run the engine: {error}") from error
        if not done:
            raise self._error("TensorRT could not run the engine")

    def _error(self, text: str) -> ShowfaceError:
        reason = self._reason()
        return ShowfaceError(f"stage {self.stage.name}: {text}{f': {reason}' if reason else ''}")


class HostSession:
    """The :class:`~..chain.Session` of a stage whose engine works on the chain's memory, tensors given by the host.

    Args:
        engine: of the stage.
        sizes: of the batches that are run.
        shapes: of the bundle's tensors.
        cuda: the device.
        stream: of the chain's engines.
        addresses: of every tensor of the chain on the device, at the greatest batch.
        idle: waits until the chain works on nothing, so that this memory is free.
    """

    def __init__(
        self,
        engine: EngineStep,
        sizes: Sequence[int],
        shapes: Shapes,
        cuda: CudaRuntime,
        stream: int,
        addresses: Addresses,
        idle: Callable[[], None],
    ) -> None:
        self.stage = engine.stage
        self._engine, self._sizes, self._shapes, self._cuda = engine, sizes, shapes, cuda
        self._stream, self._addresses, self._idle = stream, addresses, idle

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Map the stage's inputs to its outputs on the host, by name; a batch beyond the profile is split."""
        stage, shapes, cuda = self.stage, self._shapes, self._cuda
        arrays = {name: shapes.checked(name, inputs[name]) for name in stage.inputs}
        total = len(next(iter(arrays.values())))
        if any(len(array) != total for array in arrays.values()):
            raise UsageError(f"stage {stage.name}: its inputs differ in their batch")
        cuda.activate()
        self._idle()
        results = {name: shapes.empty(name, total) for name in stage.outputs}
        for chunk in chunks(total, self._sizes):
            parts = {name: shapes.empty(name, chunk.batch) for name in stage.inputs}
            outputs = {name: shapes.empty(name, chunk.batch) for name in stage.outputs}
            try:
                for name, part in parts.items():
                    chunk.cut(arrays[name], part)
                    cuda.upload(self._addresses[name], part.ctypes.data, part.nbytes, self._stream)
                self._engine.bind(chunk.batch, self._addresses)
                self._engine.execute(self._stream)
                for name, output in outputs.items():
                    cuda.download(output.ctypes.data, self._addresses[name], output.nbytes, self._stream)
            except BaseException:
                with suppress(ShowfaceError):
                    cuda.synchronize(self._stream)  # before any of these arrays can go
                raise
            cuda.synchronize(self._stream)
            for name, output in outputs.items():
                results[name][chunk.start : chunk.start + chunk.count] = output[: chunk.count]
        return results
