"""Masks that a run saves: each carries the key of its result and its own digest, so that no other is taken for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..faces.masks import Hole
from ..files import read_file, write_errors, write_file
from ..images.codec import encode_photo
from ..images.exif import PNG_HEADER, png_with_chunk
from .inputs import Job

_WORD = b"showface\0"  # the keyword of the text chunk, before the key and the digest of the file without it
_DIGITS = 64  # of a sha256
_CHUNK = 12 + len(_WORD) + 2 * _DIGITS  # bytes


def saved_mask(folder: Path, job: Job) -> Path:
    """Return where the hole of an input is saved."""
    return (folder / job.relative).with_suffix(".png")


def save_mask(hole: Hole, key: str, folder: Path, job: Job, overwrite: bool) -> None:
    """Write the hole (H, W) of an input below ``folder``.

    Raises:
        InputError: it cannot be written, or a file is there that no run saved, or that was changed since.
        DiskFullError: the disk is full.
    """
    path = saved_mask(folder, job)
    data = _signed(encode_photo(hole.astype(np.uint8) * 255, ".png", lossy=False), key)
    with write_errors(folder, path):
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{path.parent}: is a link that leads out of {folder}")
        if os.path.lexists(path) and not overwrite and key_of_mask(path) is None:
            raise InputError(f"{path}: exists and was not saved by a run; add --overwrite to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)


def key_of_mask(path: Path) -> str | None:
    """Return the key of the result whose mask a file is; None where no run saved it, or it was changed since."""
    try:
        data = read_file(path)
    except InputError:
        return None
    key = data[PNG_HEADER + 8 + len(_WORD) :][:_DIGITS].decode("latin-1")
    return key if data == _signed(data[:PNG_HEADER] + data[PNG_HEADER + _CHUNK :], key) else None


def _signed(data: bytes, key: str) -> bytes:
    return png_with_chunk(data, b"tEXt", _WORD + (key + hashlib.sha256(data).hexdigest()).encode("latin-1"))
