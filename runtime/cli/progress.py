"""What a run shows while it goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..results import Result, Status
from .common import errors

LINE_EVERY = 30.0  # seconds between two lines where stderr is no terminal


def printable(text: str) -> str:
    """Return ``text`` in one line: control characters and bytes that are no UTF-8 are written as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()


@dataclass(slots=True)
class Tally:
    """Counts of a run.

    Attributes:
        total: inputs.
        count: results by status.
        started: on the monotonic clock.
    """

    total: int
    count: dict[Status, int] = field(default_factory=lambda: {"done": 0, "skipped": 0, "failed": 0})
    started: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> int:
        """Inputs that have a result."""
        return sum(self.count.values())

    def line(self) -> str:
        """Return files, images/s, failures and time left in one line; what was skipped takes no part in the speed."""
        seconds = time.monotonic() - self.started
        worked = self.count["done"] + self.count["failed"]
        rate = worked / seconds if seconds > 0 else 0.0
        left = f"{(self.total - self.finished) / rate / 60:.0f} min left" if rate > 0 else "time left unknown"
        return (
            f"{self.finished} of {self.total} files, {rate:.2f} images/s, {self.count['skipped']} skipped, "
            f"{self.count['failed']} failed, {left}"
        )


Display = Callable[[Result], None]  # takes the results of a run one by one


@contextmanager
def show_progress(tally: Tally) -> Iterator[Display]:
    """Count results in ``tally`` and show them; failures are printed as they come."""
    if errors.is_terminal:
        with _bar(tally) as display:
            yield display
    else:
        yield _lines(tally)


@contextmanager
def _bar(tally: Tally) -> Iterator[Display]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f} images/s, {task.fields[failed]} failed"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("inpaint", total=tally.total, rate=0.0, failed=0)

        def display(result: Result) -> None:
            tally.count[result.status] += 1
            seconds = time.monotonic() - tally.started
            worked = tally.count["done"] + tally.count["failed"]
            progress.update(bar, advance=1, rate=worked / max(seconds, 1e-9), failed=tally.count["failed"])
            if result.error:
                progress.console.print(printable(f"failed: {result.error}"))

        yield display


def _lines(tally: Tally) -> Display:
    last = time.monotonic()

    def display(result: Result) -> None:
        nonlocal last
        tally.count[result.status] += 1
        if result.error:
            errors.print(printable(f"failed: {result.error}"))
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            errors.print(tally.line())

    return display
