"""How far a calibration is, and whether its time is up: a line for each step, and at least one every half minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger(__name__)

# Share of the whole time that the steps took on a CPU, in their order; what is replayed or kept is passed over.
STEPS = {
    "recording": 0.15, "finding ranges": 0.25, "choosing settings": 0.05, "probing": 0.35, "planning": 0.12,
    "judging": 0.05, "timing": 0.03,
}  # fmt: skip
LINE_EVERY = 30.0  # seconds


class Pace:
    """Says step, share and time left of one calibration.

    Args:
        minutes: after which it is to end with the best plan so far; None for no limit.
        clock: seconds.
    """

    def __init__(self, minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._minutes = clock, minutes
        self._started = self._said = clock()
        self._step = ""

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self._minutes is not None and self._clock() - self._started > 60 * self._minutes

    def at(self, step: str, done: int, total: int) -> None:
        """Say, where it is time to, that ``done`` of the ``total`` parts of a step are done."""
        now = self._clock()
        if step == self._step and now - self._said < LINE_EVERY:
            return
        self._step, self._said = step, now
        before = sum(share for name, share in STEPS.items() if list(STEPS).index(name) < list(STEPS).index(step))
        share = before + STEPS[step] * done / max(total, 1)
        left = f", about {(now - self._started) * (1 - share) / share / 60:.0f} min left" if share > 0.02 else ""
        logger.info("%s: %d of %d, %.0f %% of all%s", step, done, total, 100 * share, left)


_PACE: ContextVar[Pace | None] = ContextVar("pace", default=None)


@contextmanager
def paced(minutes: float | None) -> Iterator[None]:
    """Let a calibration in the block say how far it is, and end in time."""
    token = _PACE.set(Pace(minutes))
    try:
        yield
    finally:
        _PACE.reset(token)


def pace() -> Pace:
    """Return the pace of the calibration that is under way; without one, of none that ever ends."""
    return _PACE.get() or Pace()
