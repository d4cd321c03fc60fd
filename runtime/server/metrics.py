"""Counters of the server in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of values by upper bounds."""

    def __init__(self, name: str, description: str, bounds: Sequence[float]) -> None:
        self.name, self.description, self.bounds = name, description, tuple(bounds)
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self) -> list[str]:
        """Return its lines; the count of each bound includes those below it."""
        lines = [f"# HELP {self.name} {self.description}", f"# TYPE {self.name} histogram"]
        total = 0
        for bound, count in zip((*(f"{b:g}" for b in self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{self.name}_sum {self.sum:.6f}", f"{self.name}_count {total}"]


class Metrics:
    """What the server has done since its start. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds = Histogram("showface_request_seconds", "Time of a request that was answered with 200.", SECONDS)
        self._batches = Histogram("showface_batch_faces", "Faces that went through the networks together.", BATCHES)
        self._abandoned = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is one of the server's own, never the client's text."""
        with self._lock:
            self._requests[path, status] += 1
            if status == 200:
                self._seconds.observe(seconds)

    def abandoned(self) -> None:
        """Count a client that went before it was answered."""
        with self._lock:
            self._abandoned += 1

    def batch(self, faces: int) -> None:
        """Count a run of the networks."""
        with self._lock:
            self._batches.observe(faces)

    @property
    def mean_seconds(self) -> float:
        """Time of a good request, averaged; 0 before the first."""
        with self._lock:
            return self._seconds.sum / max(1, sum(self._seconds.counts))

    def text(self, in_flight: int, limit: int) -> str:
        """Return the page for Prometheus."""
        with self._lock:
            lines = ["# HELP showface_requests_total Answered requests.", "# TYPE showface_requests_total counter"]
            for (path, status), count in sorted(self._requests.items()):
                lines.append(f'showface_requests_total{{path="{path}",status="{status}"}} {count}')
            for name, kind, value, description in (
                ("showface_requests_abandoned_total", "counter", self._abandoned, "Clients gone before the answer."),
                ("showface_requests_in_flight", "gauge", in_flight, "Requests taken and not yet answered."),
                ("showface_requests_limit", "gauge", limit, "Requests in flight above which the answer is 503."),
            ):
                lines += [f"# HELP {name} {description}", f"# TYPE {name} {kind}", f"{name} {value}"]
            return "\n".join([*lines, *self._seconds.lines(), *self._batches.lines(), ""])
