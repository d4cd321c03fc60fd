"""The few calls of CUDA and TensorRT that the device chain makes; tests put a strict fake behind them.

What is taken is given back at the end, in reverse; a failure there neither stops the others nor hides the first error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from ...errors import ShowfaceError


class Cuda(Protocol):
    """One CUDA device. Handles and addresses are integers; every call raises what it cannot do."""

    def activate(self) -> None:
        """Make this device the calling thread's; CUDA keeps the choice by thread."""

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device."""

    def free(self, address: int) -> None:
        """Give back what :meth:`allocate` returned."""

    def allocate_pinned(self, size: int) -> int:
        """Return the address of ``size`` page-locked bytes on the host."""

    def free_pinned(self, address: int) -> None:
        """Give back what :meth:`allocate_pinned` returned."""

    def create_stream(self) -> int:
        """Return a new stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def synchronize(self, stream: int) -> None:
        """Wait on the host until the stream has nothing left to do."""

    def create_event(self) -> int:
        """Return a new event."""

    def destroy_event(self, event: int) -> None:
        """Give an event back."""

    def record(self, event: int, stream: int) -> None:
        """Let ``event`` stand for all that the stream has been given so far."""

    def wait(self, stream: int, event: int) -> None:
        """Let what the stream is given from now on wait for ``event``; the host goes on."""

    def synchronize_event(self, event: int) -> None:
        """Wait on the host for ``event``."""

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy from the host to the device, in the stream's order."""

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy from the device to the host, in the stream's order."""

    def begin_capture(self, stream: int) -> None:
        """Collect what the stream is given from now on in a graph, instead of doing it."""

    def end_capture(self, stream: int) -> int:
        """Return the collected graph, on the device and ready to be launched."""

    def abort_capture(self, stream: int) -> None:
        """End a capture that went wrong; nothing of it is kept, and its error is taken off the runtime."""

    def launch(self, graph: int, stream: int) -> None:
        """Do all that a graph has collected, in the stream's order."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""


class Context(Protocol):
    """What is used of TensorRT's ``IExecutionContext``, under its own names.

    TensorRT-RTX's has ``is_stream_capturable`` beside.
    """

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Fix the shape of an input."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where an input is read or an output written."""

    def set_device_memory(self, memory: int, size: int) -> None:
        """Lend scratch memory."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile; the first context of an engine has profile 0, others none in some versions."""

    def infer_shapes(self) -> Sequence[str]:
        """Return the names of the inputs whose shape or address is still missing."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Return the shape of a tensor under the inputs' shapes."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Give the engine's work to a stream."""


def owned(stack: ExitStack, handle: int, give_back: Callable[[int], None]) -> int:
    """Return a handle that the stack gives back."""
    quietly(stack, give_back, handle)
    return handle


def quietly(stack: ExitStack, call: Callable[..., Any], *arguments: Any) -> None:
    """Let the stack make a call whose :class:`ShowfaceError` does not matter any more."""

    def release() -> None:
        with suppress(ShowfaceError):
            call(*arguments)

    stack.callback(release)
