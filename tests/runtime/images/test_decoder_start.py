"""A decoder that is started early: who takes it, where it may run, and that none is left over."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from showface.runtime.errors import UsageError
from showface.runtime.images import decoder_start
from showface.runtime.images.decoder_process import IsolatedDecoder
from showface.runtime.images.decoder_start import close, start_decoder, start_early
from showface.runtime.images.decoder_worker import READY


def test_the_next_decoder_is_the_one_that_was_started():
    start_early()
    process = start_decoder()
    other = start_decoder()
    try:
        assert process.stdout.readline() == other.stdout.readline() == READY
        assert process.pid != other.pid
    finally:
        close(process)
        close(other)
    assert process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen on Linux alone")
def test_it_starts_on_another_processor_and_may_then_run_on_all(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, where: asked.append((pid, set(where))))
    granted = os.sched_getaffinity(0)
    start_early()
    process = start_decoder()
    close(process)
    assert {pid for pid, _ in asked} == {process.pid}
    assert asked[-1][1] == granted
    if len(granted) > 1:
        assert len(asked[0][1]) == len(granted) - 1


def test_one_that_cannot_start_is_refused_when_it_is_needed(monkeypatch):
    monkeypatch.setattr(decoder_start, "COMMAND", ("/nowhere/python",))
    start_early()
    with pytest.raises(UsageError, match="the decoder process cannot be started"):
        IsolatedDecoder().start()


def children():
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="processes are looked up in /proc")
def test_one_that_died_meanwhile_is_replaced():
    before = children()
    start_early()
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    while ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.01)
    process = start_decoder()
    try:
        assert process.stdout.readline() == READY
    finally:
        close(process)
    assert process.pid != pid
    assert children() == before


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are looked up in /proc")
def test_none_is_left_where_the_arguments_are_refused():
    code = (
        "import atexit, os, showface.cli as c, sys;"
        "here = f'/proc/self/task/{os.getpid()}/children';"
        "atexit.register(lambda: print(open(here).read() or 'none', flush=True));"  # registered before the decoder's
        "import showface.runtime.images.decoder_start as d; real = d.start_early;"
        "d.start_early = lambda: (real(), print(open(here).read(), flush=True));"
        "sys.argv = ['showface', 'inpaint']; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    started, left = done.stdout.split()
    assert (done.returncode, left) == (2, "none")
    assert not os.path.exists(f"/proc/{started}")
