"""The second half of the work on one input: composite, encode, and give the output its name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiskFullError, InputError, ShowfaceError
from ..faces.align import blend, owners
from ..faces.occlusion import barely_changed
from ..faces.tensors import composite
from ..files import write_errors
from ..images.codec import Pixels, encode_photo, write_file
from .journal import Journal
from .options import Options
from .read_input import Loaded
from .results_log import Result
from .saved_masks import save_mask


@dataclass(frozen=True, slots=True)
class Finished:
    """A loaded input with what the networks made of its faces: [3, size, size] each, or the error of one."""

    item: Loaded
    completed: Sequence[NDArray[Any] | InputError]
    seconds: float


def store(finished: Finished, options: Options, journal: Journal | None) -> Result:
    """Write the output of one input, and its mask where that is asked for.

    Args:
        finished: the input.
        options: of the run.
        journal: of the output folder; None writes a single named output.

    Returns:
        Its final result.

    Raises:
        DiskFullError: nothing can be written any more.
    """
    started = time.monotonic()
    item = finished.item
    done = replace(item.result, status="done", seconds=round(item.result.seconds + finished.seconds, 4))
    if done.mask is not None:
        done = replace(done, mask=second_opinion(item, finished.completed, done.mask))
    try:
        data = item.copy if item.copy is not None else _encode(finished, options)
        if options.save_masks is not None:
            assert done.key is not None
            save_mask(item.hole, done.key, options.save_masks, item.job, options.overwrite)
        done = replace(done, seconds=round(done.seconds + time.monotonic() - started, 4))
        if journal is not None:
            journal.publish(item.job.output, data, done, item.replace)
        else:
            with write_errors(item.job.output.parent, item.job.output):
                item.job.output.parent.mkdir(parents=True, exist_ok=True)
                write_file(item.job.output, data)
    except DiskFullError:
        raise
    except ShowfaceError as error:
        return replace(done, status="failed", error=str(error))
    except Exception as error:  # whatever one file brings about, the others go on
        return replace(done, status="failed", error=f"{item.job.source}: {type(error).__name__}: {error}")
    return done


def second_opinion(
    item: Loaded, completed: Sequence[NDArray[Any] | InputError], note: dict[str, Any]
) -> dict[str, Any]:
    """Return the note about a found mask, with a doubt where a completion hardly differs from what was there."""
    pairs = [
        (face, result)
        for face, result in zip(item.faces, completed, strict=True)
        if face.seen is not None and not isinstance(result, InputError)
    ]
    if any(barely_changed(face.seen, result, face.mask) for face, result in pairs if face.seen is not None):
        doubt = "a part looks the same when it is completed: perhaps nothing covers the face there"
        return {**note, "uncertain": True, "doubts": [*note.get("doubts", []), doubt]}
    return note


def _encode(finished: Finished, options: Options) -> bytes:
    item = finished.item
    pixels = assemble(item, finished.completed, options.masks.kind == "alpha")
    photo = item.photo
    try:
        return encode_photo(pixels, item.job.output.suffix, photo.lossy, photo.profile, photo.exif, options.quality)
    except InputError as error:
        raise InputError(f"{item.job.output}: {error}") from error


def assemble(item: Loaded, completed: Sequence[NDArray[Any] | InputError], opaque: bool) -> Pixels:
    """Return the photo with all completed faces in its hole.

    Raises:
        InputError: the networks failed on one of them.
    """
    for face in completed:
        if isinstance(face, InputError):
            raise InputError(f"{item.job.source}: {face}")
    if not item.faces:
        return item.photo.pixels
    squares = [face.square for face in item.faces if face.square is not None]
    if not squares:
        return composite(item.photo.pixels, item.hole, np.asarray(completed[0]), opaque)
    picture = item.photo.pixels.copy()
    owner = owners(squares, item.hole)
    for index, (square, face) in enumerate(zip(squares, completed, strict=True)):
        blend(picture, item.hole, owner == index, square, face, opaque)
    return picture
