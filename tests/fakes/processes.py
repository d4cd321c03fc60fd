"""Processes that a test looks at from outside."""

import os
from pathlib import Path

import pytest


def children():
    """Return the ids of the direct child processes that the main thread has started; Linux only."""
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("needs /proc")
    return [int(pid) for pid in path.read_text().split()]
