"""One inpainter for a long time: threads that call it side by side get what one gets, and its memory stands still.

``SHOWFACE_CALLS=2000 python -m pytest tests/faults/test_many_calls.py -s`` calls it so often, and prints what it
measured.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from showface.runtime.inpainter import Inpainter

CALLS = int(os.environ.get("SHOWFACE_CALLS", "60"))
THREADS, KINDS = 8, 10
GROWTH = 12  # MiB after the first quarter of the calls


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 1)


@pytest.fixture(scope="module")
def calls(inpainter, faces):
    """Return arguments of different sizes, holes and types, each with what a call alone returns."""
    given = []
    for k in range(KINDS):
        face, hole = faces[k % 3]
        size = slice(0, 256 - 16 * k)
        pixels = np.roll(face, 7 * k, axis=1)[size, size].astype((np.uint8, np.uint16)[k % 2]) * (1, 257)[k % 2]
        given.append((pixels, np.roll(hole, 5 * k, axis=0)[size, size]))
    return [(pixels, hole, inpainter.complete(pixels, hole)) for pixels, hole in given]


def test_threads_get_what_one_gets(inpainter, calls):
    count, started = max(CALLS // 5, 2 * THREADS), time.monotonic()

    def call(k):
        pixels, hole, _ = calls[k % KINDS]
        return inpainter.complete(pixels.copy(), hole.copy())

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(call, range(count)))
    print(f"{count} calls from {THREADS} threads in {time.monotonic() - started:.1f} s")
    for k, completed in enumerate(found):
        np.testing.assert_array_equal(completed, calls[k % KINDS][2])


def test_bad_calls_of_other_threads_change_nothing(inpainter, calls):
    def call(k):
        pixels, hole, _ = calls[k % KINDS]
        if k % 3 == 0:
            with pytest.raises(Exception, match="hole"):
                inpainter.complete(pixels, hole[:-1])
            return None
        return inpainter.complete(pixels, hole)

    with ThreadPoolExecutor(THREADS) as pool:
        for k, completed in enumerate(pool.map(call, range(2 * THREADS))):
            if completed is not None:
                np.testing.assert_array_equal(completed, calls[k % KINDS][2])


def resident():
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of this process from /proc")
def test_memory_stands_still(inpainter, calls):
    seen = []
    for k in range(CALLS):
        pixels, hole, _ = calls[k % KINDS]
        inpainter.complete(pixels, hole)
        seen.append(resident())
    early, late = max(seen[: CALLS // 4]), max(seen)
    print(f"{CALLS} calls: {early:.0f} MiB after a quarter of them, {late:.0f} MiB after all")
    assert late < early + GROWTH
