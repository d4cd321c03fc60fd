"""How many processors this process may use: a container often has the time of a few on a machine of many."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use: by its affinity, and by the quota of its container.

    Args:
        root: of the file system; tests have one of their own.
    """
    return min(granted(), quota(root) or granted())


def granted() -> int:
    """Return how many processors the system may run this process on, whatever share of their time it gets."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> int | None:
    """Return the processors whose time a container has, rounded up; None where nothing limits it."""
    found = [max(1, math.ceil(share)) for share in _quotas(root)]
    return min(found, default=None)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the processors that each control group above this process leaves it (cgroup v2, then v1)."""
    for line in _words(root / "proc/self/cgroup", "\n"):
        _, _, rest = line.partition(":")
        kinds, _, group = rest.partition(":")
        if kinds and "cpu" not in kinds.split(","):
            continue
        base = root / "sys/fs/cgroup" / (kinds and "cpu")
        place = base / group.lstrip("/")
        # A container mostly sees its own group as the root, whatever path it is told.
        for folder in (place, *place.parents):
            if not folder.is_relative_to(base):
                break
            if kinds:
                limits = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
            else:
                limits = _words(folder / "cpu.max")
            with contextlib.suppress(ValueError, ZeroDivisionError):
                quota, period = map(float, limits)
                if quota > 0:
                    yield quota / period


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().split(separator)
    except OSError:
        return []
