"""Files that nobody vouches for: read whole, within bounds, without waiting; what they claim is compared first."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import InputError, ShowfaceError, UsageError, system_errors

MAX_FILE = 2**30  # bytes; 100 megapixels of 16-bit RGBA are 800 MB uncompressed
MAX_TEXT = 2**25  # bytes of JSON, CSV or TOML; they grow tenfold when they are parsed
MAX_LINE = 2**18  # bytes of one line of a log, kept for each input: it names two paths, escaped 24 KiB each at most
_MOST_ARRAYS = 64
# Without waiting for the other end of a FIFO.
_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_REPEATED = 60  # characters of a value from a file that an error repeats

Headers = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


@contextmanager
def open_file(
    path: Path, error: type[ShowfaceError] = InputError, failed: str = "cannot be read"
) -> Iterator[BinaryIO]:
    """Open a regular file to read it; ``failed`` says what failed, and what mends it.

    Raises:
        ShowfaceError: of the class ``error``; it cannot be opened, or is a FIFO, a device or a folder.
    """
    with system_errors(error, path, failed):
        try:
            number = os.open(path, _AT_ONCE)
        except ValueError as why:  # of a name that no file can have
            raise error(f"{shown(str(path))}: {failed}: {why}") from why
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise error(f"{path}: is no regular file; showface does not read from folders, pipes and devices")
        with os.fdopen(number, "rb") as file:
            yield file


def read_file(
    path: Path,
    limit: int = MAX_FILE,
    error: type[ShowfaceError] = InputError,
    failed: str = "cannot be read",
) -> bytes:
    """Return the bytes, ``limit`` at most, of a regular file; see :func:`open_file`.

    Raises:
        ShowfaceError: as :func:`open_file`, or it is larger, or changes meanwhile.
    """
    with open_file(path, error, failed) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(f"{path}: is larger than {limit // 2**20} MiB")
        data = file.read(size + 1)
    if len(data) != size:
        raise error(f"{path}: changed while it was read; wait until it is whole")
    return data


def file_digest(path: Path, error: type[ShowfaceError] = InputError, limit: int = MAX_FILE) -> str:
    """Return the sha256 of a regular file; the errors are those of :func:`read_file`."""
    with open_file(path, error) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise error(f"{path}: is larger than {limit // 2**20} MiB")
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def read_lines(path: Path, error: type[ShowfaceError] = InputError) -> Iterator[str]:
    """Yield the lines of a log; one that is too long to be a record is left out.

    Raises:
        ShowfaceError: as :func:`open_file`.
    """
    with open_file(path, error) as file:
        whole = True
        while piece := file.readline(MAX_LINE):
            ends = piece.endswith(b"\n") or len(piece) < MAX_LINE
            if whole and ends:
                yield piece.decode("utf-8", errors="replace")
            whole = ends


def parse_json(data: bytes | str) -> Any:
    """Return the value that JSON text holds; Infinity and NaN, which are no JSON, are refused.

    Raises:
        ValueError: it is no JSON, of another encoding, nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return _DECODER.decode(data if isinstance(data, str) else data.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: a journal has a hundred thousand lines


def read_json(path: Path, kind: str, remedy: str) -> Any:
    """Return the value in a JSON file, of such a ``kind`` as ``a bundle manifest``.

    Raises:
        UsageError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_file(path, MAX_TEXT, UsageError, f"cannot be read; {remedy}"))
    except ValueError as why:
        raise UsageError(f"{path}: not {kind}: {why}; {remedy}") from why


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        UsageError: it cannot be read, or is of another encoding.
    """
    try:
        return read_file(path, MAX_TEXT, UsageError).decode("utf-8-sig")
    except UnicodeDecodeError as why:
        raise UsageError(f"{path}: is no UTF-8 text: {why}; save it as UTF-8") from why


def shown(value: object) -> str:
    """Return a value out of a file as an error repeats it: cut, so that a file cannot flood a terminal."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= _REPEATED else f"{text[:_REPEATED]}…"


def parse_arrays(data: bytes, fault: Callable[[Headers], str | None], limit: int = MAX_FILE) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file; nothing is allocated before all that they claim to be was judged.

    Args:
        data: of the file.
        fault: returns what is wrong with names, types and shapes, in words; None where they are as expected.
        limit: bytes of all arrays together.

    Raises:
        ValueError: it is no such file, is damaged, holds objects or more than it may, or ``fault`` says so.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[: _MOST_ARRAYS + 1]}
            if len(members) != len(archive.infolist()):
                raise ValueError("it holds too many arrays, or one twice")
            headers = {}
            for name, info in members.items():
                with archive.open(info) as member:
                    headers[name] = _array_header(member, info.file_size)
            if sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values()) > limit:
                raise ValueError(f"its arrays take more than {limit // 2**20} MiB")
            wrong = fault({name: (str(dtype), shape) for name, (shape, dtype) in headers.items()})
            if wrong is not None:
                raise ValueError(wrong)
            return {name: npy.read_array(io.BytesIO(archive.read(info))) for name, info in members.items()}
    except ValueError:
        raise
    except MemoryError as error:
        raise ValueError("there is not enough memory for it") from error
    except Exception as error:  # zipfile, zlib and the parser of headers raise types of many kinds
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _array_header(member: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype from the header of one ``.npy`` file of ``size`` bytes."""
    version = npy.read_magic(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array of version {version}")
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds objects, which are not read")
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"an array has the shape {shown(shape)}")
    if member.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"an array of {dtype} {shown(shape)} is not as long as it says")
    return shape, dtype
