"""The few calls of TensorRT that the device chain makes, and how it gives back what it takes.

What is taken is given back at the end, in reverse; a failure there neither stops the others nor hides the first error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from ...errors import ShowfaceError


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
