"""What a run shows while it goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from showface.runtime.batch.results_log import Result, Status

from .printing import errors

FOUND = ("completed", "nothing found", "too large", "uncertain")  # what becomes of a mask that was found
OFTEN = 3  # times that the same is said of single files
LINE_EVERY = 30.0  # seconds between two lines where stderr is no terminal


@dataclass(slots=True)
class Tally:
    """Counts of a run.

    Attributes:
        total: inputs.
        count: results by status.
        found: results of masks that the networks found, by what became of them.
        empty: of those that are done, results whose hole was empty, so that nothing was completed.
        categories: results in which each category was found.
        warned: how often each thing was to be said of a result.
        started: on the monotonic clock; of a run that goes on with an earlier one, when it had skipped what was done.
    """

    total: int
    count: dict[Status, int] = field(default_factory=lambda: {"done": 0, "skipped": 0, "failed": 0})
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FOUND, 0))
    empty: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
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
        self.empty += result.status == "done" and result.hole_ratio == 0
        if result.status != "failed":
            self._add_found(result)
        if not self.worked:
            self.started = time.monotonic()

    def _add_found(self, result: Result) -> None:
        note = result.mask or {}
        self.categories.update(list(note.get("categories", ())))
        if note.get("too_large"):
            self.found["too large"] += 1
        elif result.hole_ratio:
            self.found["completed"] += 1
        else:
            self.found["nothing found"] += 1
        self.found["uncertain"] += bool(note.get("uncertain"))

    @property
    def doubtful(self) -> bool:
        """Whether a found mask is uncertain or too large."""
        return bool(self.found["uncertain"] or self.found["too large"])

    def counts(self) -> str:
        """Return the results by status, and how many completed nothing."""
        words = ", ".join(f"{n} {status}" for status, n in self.count.items())
        if not self.empty:
            return words
        none = "all" if self.empty == self.count["done"] else str(self.empty)
        return words.replace(" done", f" done ({none} of them had nothing to complete: their hole is empty)", 1)

    def found_line(self, what: str = "completed", empty: str = "copied") -> str:
        """Return what became of the files whose masks were found: of those with a hole, and of those without."""
        total = sum(self.found.values()) - self.found["uncertain"]
        return (
            f"{total} files: {self.found['completed']} {what}, {self.found['nothing found']} nothing found ({empty}), "
            f"{self.found['too large']} too large (a face left as it is); {self.found['uncertain']} of them uncertain"
            + "".join(f"; {name} in {count}" for name, count in sorted(self.categories.items()))
        )

    def line(self) -> str:
        """Return files, images/s, failures and time left in one line."""
        rate = self.rate
        left = f"{(self.total - self.finished) / rate / 60:.0f} min left" if rate > 0 else "time left unknown"
        return (
            f"{self.finished} of {self.total} files, {rate:.2f} images/s, {self.count['skipped']} skipped, "
            f"{self.count['failed']} failed, {left}"
        )


def warnings_of(result: Result) -> list[str]:
    """Return what is to be said of an input that did not fail."""
    found = (result.mask or {}).get("warnings", ())
    return [str(text) for text in found] if isinstance(found, list) and result.status == "done" else []


def said(result: Result, tally: Tally) -> list[str]:
    """Return the lines about a result: why it failed, or what is to be said of it, the first few times."""
    lines = [f"failed: {result.error}"] if result.error else []
    for text in warnings_of(result):
        tally.warned[text] += 1
        if tally.warned[text] <= OFTEN:
            lines.append(f"look at {result.input}: {text}")
    return lines


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
            for line in said(result, tally):
                progress.console.print(line)

        yield display


def _lines(tally: Tally) -> Display:
    last = time.monotonic()

    def display(result: Result) -> None:
        nonlocal last
        tally.add(result)
        for line in said(result, tally):
            errors.print(line)
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            errors.print(tally.line())

    return display


class BuildBars:
    """A bar for each engine of a target: :class:`showface.export.engines.process.Progress`."""

    def __init__(self, bars: Progress, target: str) -> None:
        self._bars, self._target, self._bar_of = bars, target, dict[str, TaskID]()

    def advance(self, stage: str, phase: str, done: int, steps: int) -> None:
        """Move the bar of a stage."""
        if stage not in self._bar_of:
            self._bar_of[stage] = self._bars.add_task(f"{self._target} {stage}", total=None, phase="")
        self._bars.update(self._bar_of[stage], completed=done, total=steps, phase=phase)


@contextmanager
def build_bars(target: str) -> Iterator[BuildBars]:
    """Show how far the engines of a target are, until the block ends."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[phase]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bars:
        yield BuildBars(bars, target)
