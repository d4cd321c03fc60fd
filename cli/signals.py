"""What SIGINT and SIGTERM do: end a verb at once, or after the work in flight; a second one ends the process.

Python runs handlers of signals between two instructions of the main thread, hence never while that waits for a graph
that does not end. The second signal is therefore answered by a thread, to which the system's own handler writes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_watching = False
_ended: list[int] = []  # by the handler of the main thread
_seen: list[int] = []  # by the thread that watches, since handlers were set


def end_at_signals() -> None:
    """End the process at a signal, with exit code 130 or 143 and without a traceback."""
    _watch()
    _ended.clear()
    for number in SIGNALS:
        signal.signal(number, _end)


def ended_by() -> int:
    """Return the signal that is ending the process; 0 for none."""
    return _ended[-1] if _ended else 0


def _end(number: int, frame: FrameType | None) -> None:
    _ended.append(number)
    sys.exit(128 + number)


def catch_signals() -> list[int]:
    """Collect signals in the list that is returned, so that work in flight can be kept; a second one ends at once."""
    _watch()
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    for number in SIGNALS:
        signal.signal(number, remember)
    return caught


def _watch() -> None:
    """Start the thread that ends the process at the second signal; once, and not in forks."""
    global _watching
    _seen.clear()
    if _watching or sys.platform == "win32":  # where a wake-up needs a socket, and Ctrl-Break ends any process
        return
    _watching = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_end_at_the_second, args=(reading,), name="signals", daemon=True).start()


def _end_at_the_second(reading: int) -> None:
    while True:
        (number,) = os.read(reading, 1)
        # Training and the server answer signals in their own way.
        if number not in SIGNALS or getattr(signal.getsignal(number), "__module__", None) != __name__:
            continue
        _seen.append(number)
        if len(_seen) > 1:
            os._exit(128 + number)  # outputs are renamed into place when they are whole: none is left half-written
