"""The decoder's process: how it starts, what it leaves alone, and that a failure leaves its pipes in step."""

import io
import os
import sys

import numpy as np
import pytest
from fakes.processes import children
from PIL import Image

from showface.runtime.errors import UsageError
from showface.runtime.images.decoder_process import IsolatedDecoder


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_failure_of_the_reader_leaves_nothing_in_the_pipe(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    with IsolatedDecoder() as decoder:
        monkeypatch.setattr(np, "empty", no_memory)
        with pytest.raises(MemoryError):
            decoder.decode(png(1), "large.png")
        monkeypatch.undo()
        assert (decoder.decode(png(2), "next.png").pixels[..., 0] == 2).all()


def test_modules_of_the_working_directory_are_not_run(tmp_path, monkeypatch):
    (tmp_path / "PIL.py").write_text("raise SystemExit('ran a stranger')")
    monkeypatch.chdir(tmp_path)
    with IsolatedDecoder() as decoder:
        assert decoder.decode(png(3), "x.png").pixels.shape == (48, 64, 3)


def test_a_decoder_that_cannot_start_is_refused_with_its_last_words(monkeypatch):
    command = (sys.executable, "-c", "raise SystemExit('no decoder here')")
    monkeypatch.setattr("showface.runtime.images.decoder_start.COMMAND", command)
    with pytest.raises(UsageError, match="cannot be started: no decoder here"), IsolatedDecoder():
        pass


def test_the_signals_of_the_terminal_do_not_reach_it():
    before = children()
    with IsolatedDecoder():
        (decoder,) = {*children()} - {*before}
        assert os.getsid(decoder) != os.getsid(0)
