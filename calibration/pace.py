"""How far a calibration is, and whether its time is up: a line for each step, and at least one every half minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger(__name__)

LINE_EVERY = 30.0  # seconds
LEAST_WORKED = 0.02  # share of the work that must be done before it tells how long the rest takes


class Pace:
    """Says step, share and time left of one calibration.

    Args:
        minutes: after which it is to end with the best plan so far; None for no limit.
        clock: seconds.
    """

    def __init__(self, minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._minutes = clock, minutes
        self._started = self._said = clock()
        self._expected: dict[str, float] = {}
        self._step, self._worked = "", 0.0

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self._minutes is not None and self._clock() - self._started > 60 * self._minutes

    def expect(self, steps: Mapping[str, float]) -> None:
        """Say which steps come, in their order, and how long each takes: seconds of any machine, to compare them."""
        self._expected = dict(steps)

    def at(self, step: str, done: int, total: int) -> None:
        """Say, where it is time to, that ``done`` of the ``total`` parts of a step are done.

        A step that is never named was kept from an earlier call: its share is done, and it tells nothing of the speed.
        """
        now = self._clock()
        if step == self._step and now - self._said < LINE_EVERY:
            return
        if step != self._step:
            self._worked += self._expected.get(self._step, 0.0)
        self._step, self._said = step, now
        names, whole = list(self._expected), sum(self._expected.values())
        if step not in names or whole <= 0:
            logger.info("%s: %d of %d", step, done, total)
            return
        here = self._expected[step] * done / max(total, 1)
        passed = sum(self._expected[name] for name in names[: names.index(step)]) + here
        worked, left = self._worked + here, ""
        if worked > LEAST_WORKED * whole:
            minutes = (now - self._started) / worked * (whole - passed) / 60
            left = f", about {max(minutes, 1):.0f} min left"
        logger.info("%s: %d of %d, %.0f %% of all%s", step, done, total, 100 * passed / whole, left)


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
