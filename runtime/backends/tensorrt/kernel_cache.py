"""The kernels that TensorRT-RTX has compiled for a GPU, kept on disk from one process to the next."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ShowfaceError
from ...files import write_file
from ...untrusted.read import read_file

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of this user's caches of showface; it need not exist."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "showface"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "showface"


def cache_file(engines: Sequence[str], version: str, device: str) -> Path:
    """Return where the kernels of a set of engines, given by their digests, are kept."""
    digest = hashlib.sha256("\n".join((*engines, version, device)).encode()).hexdigest()
    return cache_folder() / f"kernels-{digest[:32]}.cache"


class KernelCache:
    """One cache for all engines of a chain; it has to outlive their contexts.

    The library compares what it is given with its own version, the GPU, the driver and the operating system, and
    refuses what was made elsewhere or is broken: then kernels are compiled as in a first run, and the file replaced.
    A file that cannot be read or written costs time alone, so that it is said in the log and no error. A path of
    None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._stored = path, b""
        self._cache: Any = None

    @property
    def kept(self) -> bool:
        """Whether there is a file for what is compiled."""
        return self._path is not None

    def attach(self, config: Any) -> None:
        """Let contexts of an ``IRuntimeConfig`` use the cache; the device has to be the thread's current one."""
        if self._path is None:
            return
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._load()
        if not config.set_runtime_cache(self._cache):
            logger.warning("TensorRT-RTX takes no cache of its kernels; it compiles them in every process")

    def _load(self) -> None:
        assert self._path is not None
        if not self._path.exists():
            return
        try:
            data = read_file(self._path)
        except ShowfaceError as error:
            logger.warning("compiled kernels are not used: %s", error)
            return
        if self._cache.deserialize(data):
            self._stored = data
        else:
            logger.info(
                "%s: is broken or of another version, GPU or driver; the kernels are compiled again", self._path
            )

    def save(self) -> None:
        """Write what has been compiled, if anything has been since the file was read or written."""
        if self._path is None or self._cache is None:
            return
        memory = self._cache.serialize()
        data = b"" if memory is None else bytes(memoryview(memory))
        if not data or data == self._stored:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(self._path, data)
        except OSError as error:
            logger.warning("%s: compiled kernels cannot be kept: %s", self._path, error.strerror or error)
            return
        self._stored = data

    def release(self) -> None:
        """Let go of the library's object, once no context uses it."""
        self._cache = None
