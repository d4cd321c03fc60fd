"""What SIGINT and SIGTERM do: end a verb at once, or after the work in flight."""

from __future__ import annotations

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_signals() -> None:
    """End the process at once at a signal, with exit code 130 or 143 and without a traceback."""
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def catch_signals() -> list[int]:
    """Collect signals in the list that is returned, so that work in flight can be kept; a second one ends at once."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught:  # asked for twice: what is in flight is not waited for, which costs it
            raise SystemExit(128 + number)
        caught.append(number)

    for number in SIGNALS:
        signal.signal(number, remember)
    return caught
