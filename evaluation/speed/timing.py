"""Interleaved timing and what is said of it: percentiles, and ratios round by round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Seconds = dict[str, list[float]]
SETTLE = 0.05  # seconds; the threads of the runtime that ran before still spin, and would take the next one's cores


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of repeated runs, in milliseconds, linearly interpolated."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of one subject over that of another in the same round: above 1, the other is faster.

    Attributes:
        median: over all rounds.
        low: its 10th percentile.
        high: its 90th percentile.
        told: whether the median is further from 1 than low from high; else the rounds tell no difference.
    """

    median: float
    low: float
    high: float
    told: bool


def latency_of(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of some runs.

    >>> latency_of([0.002, 0.001, 0.003]).p50_ms
    2.0
    """
    p50, p90, p99 = np.percentile(np.asarray(seconds) * 1e3, (50, 90, 99))
    return Latency(float(p50), float(p90), float(p99), min(seconds) * 1e3, len(seconds))


def ratio_of(seconds: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return how many times as long ``seconds`` took as ``base``, round by round.

    >>> ratio_of([0.4, 0.2], [0.2, 0.1]).median
    2.0
    """
    low, median, high = np.percentile(np.asarray(seconds) / np.asarray(base), (10, 50, 90))
    return Ratio(float(median), float(low), float(high), bool(abs(median - 1) > high - low))


def interleave(tasks: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int, settle: float = SETTLE) -> Seconds:
    """Time all tasks in turn, so that what disturbs the machine disturbs them alike.

    Every second round runs them in the reverse order, so that none is always behind the same other. Before each run
    there is a pause, in which worker threads that wait for more work go to sleep.

    Args:
        tasks: by name.
        rounds: runs of each task on the clock.
        warm_up: runs of each task before.
        settle: seconds of the pause; tasks of one thread need none.

    Returns:
        Seconds of each run, by name.
    """
    for _ in range(warm_up):
        for task in tasks.values():
            task()
    seconds: Seconds = {name: [] for name in tasks}
    for index in range(rounds):
        for name in list(tasks) if index % 2 == 0 else list(tasks)[::-1]:
            time.sleep(settle)
            started = time.perf_counter()
            tasks[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def pin(threads: int) -> None:
    """Keep this process on its first ``threads`` processors, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
