"""Decode image files in a process of its own, so that a file which crashes or hangs a decoder fails alone."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError, UsageError, system_errors
from .codec import Photo
from .decoder_start import COMMAND, close, start_decoder
from .decoder_worker import READY
from .metadata import Metadata

TIME_LIMIT = 120.0  # seconds for one file


class IsolatedDecoder:
    """A decoder process, which is started again after a crash. One thread at a time.

    Raises:
        UsageError: on entering, where it cannot be started.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        self.time_limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process, and do not wait until it is ready.

        Raises:
            UsageError: it cannot be started.
        """
        with system_errors(UsageError, Path(COMMAND[0]), "the decoder process cannot be started"):
            self._process = start_decoder()
        self._ready = False

    def __enter__(self) -> IsolatedDecoder:
        self._running()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, data: bytes, name: str) -> Photo:
        """Decode the bytes of an image file, as :func:`showface.runtime.images.codec.decode_photo` does.

        Raises:
            InputError: as there, or the decoder crashed or took too long.
        """
        process = self._running()
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.time_limit, expire)
        timer.start()
        try:
            return _ask(process, data, name)
        except InputError:
            raise
        except (EOFError, BrokenPipeError):
            cause = self._cause_of_death(late.is_set())
            raise InputError(f"{name}: {cause}; convert or remove the file") from None
        except BaseException:  # the rest of the answer is still in the pipe
            self.close()
            raise
        finally:
            timer.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        assert self._process is not None
        if not self._ready:
            self._await(self._process)
            self._ready = True
        return self._process

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() == READY:
            return
        process.kill()
        words = process.stderr.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        self.close()
        raise UsageError(f"the decoder process cannot be started: {words[-1]}; see: {' '.join(COMMAND[:4])}")

    def _cause_of_death(self, timed_out: bool) -> str:
        process, self._process = self._process, None
        assert process is not None
        code = process.wait()
        close(process)
        if timed_out:
            return f"cannot be decoded within {self.time_limit:g} s"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"crashed its decoder ({signal.Signals(-code).name})"
        return f"crashed its decoder (exit code {code})"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            close(self._process)
            self._process = None


def _ask(process: subprocess.Popen[bytes], data: bytes, name: str) -> Photo:
    assert process.stdin is not None
    assert process.stdout is not None
    request = json.dumps({"name": name, "size": len(data)}).encode() + b"\n"
    process.stdin.write(request)
    process.stdin.write(data)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    if "error" in header:
        raise InputError(header["error"])
    pixels = np.empty(header["shape"], header["dtype"])
    if math.prod(header["shape"]):
        _read_into(process.stdout, pixels.reshape(-1).view(np.uint8).data)
    profile = _read(process.stdout, header["profile"])
    exif, metadata = _read(process.stdout, header["exif"]), Metadata.from_json(header["metadata"])
    return Photo(pixels, header["lossy"], profile, exif, metadata, header["gray"], tuple(header["notes"]))


def _read_into(pipe: Any, view: memoryview) -> None:
    while view:
        count = pipe.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]


def _read(pipe: IO[Any], size: int | None) -> bytes | None:
    if size is None:
        return None
    data: bytes = pipe.read(size)
    if len(data) != size:
        raise EOFError
    return data
