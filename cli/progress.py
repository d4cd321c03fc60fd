"""What a run shows while it goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from showface.runtime.batch.results_log import Result, Status

from .printing import errors, printable

LINE_EVERY = 30.0  # seconds between two lines where stderr is no terminal


@dataclass(slots=True)
class Tally:
    """Counts of a run.

    Attributes:
        total: inputs.
        count: results by status.
        started: on the monotonic clock; of a run that goes on with an earlier one, when it had skipped what was done.
    """

    total: int
    count: dict[Status, int] = field(default_factory=lambda: {"done": 0, "skipped": 0, "failed": 0})
    started: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> int:
        """Inputs that have a result."""
        return sum(self.count.values())

    @property
    def worked(self) -> int:
        """Inputs that were not skipped."""
        return self.count["done"] + self.count["failed"]

    @property
    def rate(self) -> float:
        """Images per second, without those that were skipped."""
        return self.worked / max(time.monotonic() - self.started, 1e-9)

    def add(self, result: Result) -> None:
        """Count a result."""
        self.count[result.status] += 1
        if not self.worked:
            self.started = time.monotonic()

    def line(self) -> str:
        """Return files, images/s, failures and time left in one line."""
        rate = self.rate
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
            tally.add(result)
            progress.update(bar, advance=1, rate=tally.rate, failed=tally.count["failed"])
            if result.error:
                progress.console.print(printable(f"failed: {result.error}"))

        yield display


def _lines(tally: Tally) -> Display:
    last = time.monotonic()

    def display(result: Result) -> None:
        nonlocal last
        tally.add(result)
        if result.error:
            errors.print(printable(f"failed: {result.error}"))
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            errors.print(tally.line())

    return display
