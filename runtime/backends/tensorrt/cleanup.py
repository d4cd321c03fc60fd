"""Give handles back at the end, in reverse; a failure there neither stops the others nor hides the first error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from ...errors import ShowfaceError


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
