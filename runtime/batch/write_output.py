"""The second half of the work on one input: compose, encode, and give the output its name; and save its mask.

A saved mask carries the key of the result that it belongs to, and a digest of its own: one that was made otherwise, or
edited since, is told from it.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiskFullError, InputError, ShowfaceError
from ..faces.align import blend, owners
from ..faces.mask_picture import Hole
from ..faces.occlusion import barely_changed
from ..files import Write, atomic_file, write_errors, write_flushed
from ..images.codec import Pixels, encode_like, encode_photo, write_file
from ..images.exif import PNG_HEADER, png_with_chunk
from ..inpainter import Inpainter
from ..untrusted.read import read_file
from .item import Item
from .journal import Journal
from .options import Options
from .results_log import Result

_WORD = b"showface\0"  # the keyword of the text chunk, before the key and the digest of the file without it
_DIGITS = 64  # of a sha256
_CHUNK = 12 + len(_WORD) + 2 * _DIGITS  # bytes


def write_output(item: Item, options: Options, journal: Journal | None) -> Result:
    """Write the output of one input, and its mask where that is asked for; without a journal it is a single named one.

    Returns:
        Its final result.

    Raises:
        DiskFullError: nothing can be written any more.
    """
    started = time.monotonic()
    done = replace(item.result, status="done", mask=second_opinion(item))
    try:
        data = item.copy if item.copy is not None else _encode(item, options)
        if options.save_masks is not None:
            assert item.hole is not None
            assert done.key is not None
            write = write_flushed if journal is None else journal.write
            save_mask(item.hole, done.key, options.save_masks, item, options.overwrite, write)
        done = replace(done, seconds=round(done.seconds + time.monotonic() - started, 4))
        if journal is not None:
            journal.publish(item.output, data, done, item.replace)
        else:
            with write_errors(item.output.parent, item.output):
                item.output.parent.mkdir(parents=True, exist_ok=True)
                write_file(item.output, data)
    except DiskFullError:
        raise
    except ShowfaceError as error:
        return replace(done, status="failed", error=str(error))
    except Exception as error:  # whatever one file brings about, the others go on
        return replace(done, status="failed", error=f"{item.source}: {type(error).__name__}: {error}")
    return done


def second_opinion(item: Item) -> dict[str, Any] | None:
    """Return the note about the mask, with a doubt where a completion hardly differs from what was there."""
    note, doubt = item.result.mask, False
    for face, completed in zip(item.faces, item.completed, strict=True):
        if face.seen is not None and not isinstance(completed, InputError):
            doubt = doubt or barely_changed(face.seen, completed, face.mask)
    if note is None or not doubt:
        return note
    text = "a part looks the same when it is completed: perhaps nothing covers the face there"
    return {**note, "uncertain": True, "doubts": [*note.get("doubts", []), text]}


def _encode(item: Item, options: Options) -> bytes:
    pixels, photo = compose(item, options.masks.kind == "alpha"), item.photo
    assert photo is not None
    try:
        return encode_like(photo, pixels, item.output.suffix, options.quality)
    except InputError as error:
        raise InputError(f"{item.output}: {error}") from error


def compose(item: Item, opaque: bool) -> Pixels:
    """Return the photo with all completed faces in its hole.

    Raises:
        InputError: the networks failed on one of them.
    """
    assert item.photo is not None
    assert item.hole is not None
    for face in item.completed:
        if isinstance(face, InputError):
            raise InputError(f"{item.source}: {face}")
    if not item.faces:
        return item.photo.pixels
    squares = [face.square for face in item.faces if face.square is not None]
    if not squares:
        return Inpainter.compose(item.photo.pixels, item.hole, np.asarray(item.completed[0]), opaque)
    picture = item.photo.pixels.copy()
    owner = owners(squares, item.hole)
    for index, (square, face) in enumerate(zip(squares, item.completed, strict=True)):
        blend(picture, item.hole, owner == index, square, face, opaque)
    return picture


def saved_mask(folder: Path, item: Item) -> Path:
    """Return where the hole of an input is saved."""
    return (folder / item.relative).with_suffix(".png")


def save_mask(hole: Hole, key: str, folder: Path, item: Item, overwrite: bool, write: Write) -> None:
    """Write the hole (H, W) of an input below ``folder``.

    Raises:
        InputError: it cannot be written, or a file is there that no run saved, or that was changed since.
        DiskFullError: the disk is full.
    """
    path = saved_mask(folder, item)
    data = _signed(encode_photo(hole.astype(np.uint8) * 255, ".png", lossy=False), key)
    with write_errors(folder, path):
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{path.parent}: is a link that leads out of {folder}")
        if os.path.lexists(path) and not overwrite and key_of_mask(path) is None:
            raise InputError(f"{path}: exists and was not saved by a run; pass overwrite=True, or use another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            write(temporary, data)


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
