"""The first half of the work on one input: read, decode, find the hole and the faces, prepare them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, ShowfaceError, system_errors
from ..faces.align import Square, cut_out, owners, square_of
from ..faces.landmarks import Landmarks
from ..faces.masks import Hole, Listing, hole_from_mask, hole_of
from ..faces.tensors import Array, check_square, prepare
from ..files import read_file
from ..images.codec import Photo, Pixels
from ..inpainter import Inpainter
from .found_masks import find_hole
from .inputs import Job
from .options import Options
from .results_log import Result, result_key
from .saved_masks import key_of_mask, saved_mask

Decode = Callable[[bytes, str], Photo]


@dataclass(frozen=True, slots=True)
class Task:
    """A job with what is known of it.

    Attributes:
        job: the input.
        result: what is to be filled in.
        before: the last result of this input.
        replace: an existing output may be replaced.
    """

    job: Job
    result: Result
    before: Result | None
    replace: bool


@dataclass(frozen=True, slots=True)
class Face:
    """One face that waits for its batch: ``image`` [3, size, size], ``mask`` [1, size, size].

    ``square`` tells where it goes in an unaligned picture; None where the whole picture is the face. ``seen`` is the
    face as it came, [3, size, size], kept where the completion is compared with it.
    """

    image: Array
    mask: Array
    square: Square | None
    seen: Array | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An input whose faces wait for the networks; without faces it is only to be encoded, or copied.

    Attributes:
        job: the input.
        photo: decoded.
        hole: (H, W).
        faces: those that complete a part of the hole.
        result: filled in as far as it is known.
        replace: an existing output may be replaced.
        copy: the input's own bytes, where they are the output.
    """

    job: Job
    photo: Photo
    hole: Hole
    faces: tuple[Face, ...]
    result: Result
    replace: bool
    copy: bytes | None = None

    @property
    def weight(self) -> int:
        """Bytes that it holds."""
        faces = sum(face.image.nbytes * (1 if face.seen is None else 2) + face.mask.nbytes for face in self.faces)
        return self.photo.pixels.nbytes + self.hole.nbytes + faces + len(self.copy or b"")


@dataclass(frozen=True, slots=True)
class Reader:
    """What loads inputs. Its functions keep state: each thread has a reader of its own.

    Attributes:
        options: of the run.
        inpainter: whose bundle and image size count, and whose parser finds categories.
        decode: turns the bytes of a file into a photo.
        find_mask: maps an input's relative path to its mask file.
        find_faces: maps a decoded picture and its relative path to landmarks; None takes it as one aligned face.
        faces_digest: maps a relative path to a text that changes with what ``find_faces`` finds.
    """

    options: Options
    inpainter: Inpainter
    decode: Decode
    listing: Callable[[Path], Listing]
    find_faces: Callable[[Pixels, str], list[Landmarks]] | None
    faces_digest: Callable[[str], str]

    def load(self, task: Task) -> Loaded | Result:
        """Load one input; return a result at once where nothing is left to do."""
        started = time.monotonic()
        try:
            loaded = self._load(task)
        except ShowfaceError as error:
            loaded = replace(task.result, status="failed", error=str(error))
        except Exception as error:  # whatever one file brings about, the others go on
            text = f"{task.job.source}: {type(error).__name__}: {error}"
            loaded = replace(task.result, status="failed", error=text)
        seconds = round(time.monotonic() - started, 4)
        if isinstance(loaded, Result):
            return replace(loaded, seconds=seconds)
        return replace(loaded, result=replace(loaded.result, seconds=seconds))

    def _load(self, task: Task) -> Loaded | Result:
        job = task.job
        if job.error is not None:
            raise InputError(job.error)
        data = read_file(job.source)
        mask_file = self.options.masks.find(job.relative, self.listing)
        mask_data = None if mask_file is None else read_file(mask_file)
        recipe = self.options.describe(self.faces_digest(job.relative.as_posix()))
        result = replace(task.result, key=result_key(data, mask_data, self.inpainter.bundle_digest, recipe))
        with system_errors(InputError, job.output, "cannot be looked for"):
            exists = job.output.is_symlink() or job.output.exists()
        if exists:
            if task.before is not None and self._is_done(job, result, task.before):
                return replace(result, status="skipped", hole_ratio=task.before.hole_ratio, mask=task.before.mask)
            if not task.replace:
                raise InputError(f"{job.output}: exists and is not of an earlier run; add --overwrite to replace it")
        photo = self.decode(data, str(job.source))
        squares: list[Square] | None = None
        note: dict[str, Any] = {"from": self.options.masks.kind}
        if mask_data is not None:
            mask = self.decode(mask_data, str(mask_file)).pixels
            hole = hole_from_mask(mask, photo.pixels.shape[:2], f"{mask_file} for {job.source}")
        elif self.options.masks.found:
            squares = self._squares(photo, job)
            hole, found = find_hole(photo.pixels, squares, self.inpainter, self.options.masks)
            note = found.to_json()
        else:
            hole = hole_of(photo, self.options.masks, None, str(job.source))
        if self.find_faces is None:
            check_square(photo.pixels, str(job.source))
        result = replace(result, hole_ratio=float(hole.mean()), mask=note)
        if not hole.any():
            same = job.output.suffix.lower() == job.source.suffix.lower()
            return Loaded(job, photo, hole, (), result, task.replace, data if same else None)
        squares = self._squares(photo, job) if squares is None else squares
        faces = self._prepare(photo, hole, squares, str(job.source))
        return Loaded(job, photo, hole, faces, result, task.replace)

    def _is_done(self, job: Job, result: Result, before: Result) -> bool:
        if before.status == "failed" or (before.output, before.key) != (result.output, result.key):
            return False
        return self.options.save_masks is None or key_of_mask(saved_mask(self.options.save_masks, job)) == result.key

    def _squares(self, photo: Photo, job: Job) -> list[Square] | None:
        """Return the squares of the faces in a picture; None where it is an aligned face itself."""
        if self.find_faces is None:
            check_square(photo.pixels, str(job.source))
            return None
        found = self.find_faces(photo.pixels, job.relative.as_posix())
        if not found:
            raise InputError(f"{job.source}: no face was found; give its landmarks with --landmarks")
        return [square_of(landmarks, photo.pixels.shape[:2], str(job.source)) for landmarks in found]

    def _prepare(self, photo: Photo, hole: Hole, squares: list[Square] | None, name: str) -> tuple[Face, ...]:
        size = self.inpainter.image_size

        def face(pixels: Pixels, hidden: Hole, square: Square | None) -> Face:
            image, mask = prepare(pixels, hidden, size, name)
            seen = None
            if self.options.masks.kind == "occlusion":
                seen, _ = prepare(pixels, np.zeros_like(hidden), size, name)
            return Face(image, mask, square, seen)

        if squares is None:
            return (face(photo.pixels, hole, None),)
        owner = owners(squares, hole)
        lost = np.count_nonzero(hole & (owner < 0))
        if lost:
            raise InputError(
                f"{name}: {lost / np.count_nonzero(hole):.1%} of the hole lies outside the squares of the "
                f"{len(squares)} faces found; give the landmarks of the others with --landmarks, or a smaller mask"
            )
        needed = [square for index, square in enumerate(squares) if (owner == index).any()]
        return tuple(face(*cut_out(photo.pixels, hole, square, size), square) for square in needed)


def landmarks_digest(faces: Mapping[str, list[Landmarks]], name: str) -> str:
    """Return a digest of the landmarks given for one input."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(face).tobytes() for face in faces.get(name, []))).hexdigest()
