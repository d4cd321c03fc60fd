"""What a run shows while it goes on: counts, speed, time left, and its failures, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from showface.cli import progress
from showface.cli.progress import Tally, show_progress
from showface.runtime.batch.results_log import Result
from showface.runtime.untrusted.terminal import Terminal


def terminal_to(file):
    terminal = Terminal(stderr=True)
    terminal.file = file
    return terminal


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose only value is the time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def result(status, error=None):
    return Result("a", "a", status, error)


def test_speed_and_time_left_are_those_of_the_work(clock):
    tally = Tally(1000)
    for _ in range(400):
        clock[0] += 0.5
        tally.add(result("skipped"))
    assert tally.line().endswith("time left unknown")
    for status in ["done"] * 119 + ["failed"]:
        clock[0] += 0.5
        tally.add(result(status))
    assert tally.line() == "520 of 1000 files, 2.00 images/s, 400 skipped, 1 failed, 4 min left"
    clock[0] += 60  # later ones that are skipped take their time from the others
    tally.add(result("skipped"))
    assert tally.line() == "521 of 1000 files, 1.00 images/s, 401 skipped, 1 failed, 8 min left"


def test_lines_come_now_and_then_and_failures_at_once(clock, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "errors", terminal_to(shown))
    tally = Tally(70, started=clock[0])
    with show_progress(tally) as display:
        for second in range(70):
            clock[0] += 1.0
            display(result("failed", "[bold]a\nb: broken") if second == 40 else result("done"))
    assert shown.getvalue().splitlines() == [
        "30 of 70 files, 1.00 images/s, 0 skipped, 0 failed, 1 min left",
        "failed: [bold]a\\nb: broken",
        "60 of 70 files, 1.00 images/s, 0 skipped, 1 failed, 0 min left",
    ]


def test_a_terminal_gets_a_bar_and_the_failures(monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=120, highlight=False, markup=False)
    monkeypatch.setattr(progress, "errors", terminal)
    tally = Tally(2)
    with show_progress(tally) as display:
        display(result("done"))
        display(result("failed", "b: broken"))
    assert "failed: b: broken" in shown.getvalue()
    assert "2/2" in shown.getvalue()
    assert tally.count == {"done": 1, "skipped": 0, "failed": 1}
