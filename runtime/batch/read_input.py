"""The first half of the work on one input: read, decode, find the hole and the faces, prepare them."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, ShowfaceError, system_errors
from ..faces.align import Square, cut_out, owners, square_of
from ..faces.found_masks import find_hole
from ..faces.landmarks import DetectedFaces, FindFaces, GivenFaces, find_detector, read_landmarks
from ..faces.mask_picture import Hole
from ..faces.masks import Listing, hole_from_mask, hole_of, list_masks, warning_of
from ..faces.tensors import check_square
from ..images.codec import Photo, Pixels
from ..images.decoder_process import IsolatedDecoder
from ..inpainter import Inpainter
from ..untrusted.read import read_file
from .item import Item, PreparedFace
from .options import Alignment, Options
from .results_log import Result, result_key, stamp_of
from .write_output import key_of_mask, saved_mask


class InputReaders:
    """Opens readers, one for each thread, that share what is read once.

    Raises:
        UsageError: landmarks or face detector cannot be read.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.finder = None if options.alignment is None else _finder(options.alignment)
        self.listing = functools.lru_cache(maxsize=16)(list_masks)
        self._started: list[IsolatedDecoder] = []

    def start_decoder(self) -> None:
        """Start the decoder process of the first reader, so that it is ready when the networks are loaded."""
        decoder = IsolatedDecoder()
        decoder.start()
        self._started.append(decoder)

    def close(self) -> None:
        """End a decoder process that no reader has taken."""
        for decoder in self._started:
            decoder.close()

    @contextmanager
    def open(self, inpainter: Inpainter) -> Iterator[InputReader]:
        """Open a reader with a decoder process and a detector of its own."""
        find_faces = None if self.finder is None else self.finder.open()
        digest = (lambda _: "") if self.finder is None else self.finder.digest
        try:
            started = self._started.pop()
        except IndexError:
            started = IsolatedDecoder()
        with started as decoder:
            yield InputReader(self.options, inpainter, decoder.decode, self.listing, find_faces, digest)


def _finder(alignment: Alignment) -> GivenFaces | DetectedFaces:
    if alignment.landmarks is not None:
        return GivenFaces(read_landmarks(alignment.landmarks))
    return DetectedFaces(find_detector(alignment.detector))


def _said(photo: Photo, item: Item) -> list[str]:
    """Return what becomes of the parts of a file that the output does not hold."""
    suffix, deep = item.output.suffix.lower(), photo.pixels.dtype == np.uint16
    lost = photo.metadata.lost(suffix, photo.exif is not None, photo.profile is not None, deep)
    said = [*photo.notes, *([] if lost is None else [lost])]
    if suffix in (".jpg", ".jpeg") and not photo.lossy and item.source.suffix.lower() == suffix:
        said.append("is a lossless picture under a name of JPEG, and is written as JPEG; rename it, or give a format")
    return said


@dataclass(frozen=True, slots=True)
class InputReader:
    """Reads inputs. Its functions keep state: each thread has a reader of its own.

    Attributes:
        options: what is done to each image.
        inpainter: whose bundle and image size count, and whose parser finds categories.
        decode: turns the bytes of a file, and its name, into a photo.
        listing: maps a folder to the mask files in it.
        find_faces: maps a decoded picture and its relative path to landmarks; None takes it as one aligned face.
        faces_digest: maps a relative path to a text that changes with what ``find_faces`` finds.
    """

    options: Options
    inpainter: Inpainter
    decode: Callable[[bytes, str], Photo]
    listing: Callable[[Path], Listing]
    find_faces: FindFaces | None
    faces_digest: Callable[[str], str]

    def read(self, item: Item) -> Item:
        """Read one input; the item is final where it is done already, or fails."""
        started = time.monotonic()
        try:
            item = self._read(item)
        except ShowfaceError as error:
            item = replace(item, result=replace(item.result, status="failed", error=str(error)))
        except Exception as error:  # whatever one file brings about, the others go on
            text = f"{item.source}: {type(error).__name__}: {error}"
            item = replace(item, result=replace(item.result, status="failed", error=text))
        return replace(item, result=replace(item.result, seconds=round(time.monotonic() - started, 4)))

    def _read(self, item: Item) -> Item:
        if item.error is not None:
            raise InputError(item.error)
        mask_file = self.options.masks.find(item.relative, self.listing)
        recipe = self.options.describe(self.faces_digest(item.relative.as_posix()))
        # Before the files are read: one that changes meanwhile has another stamp the next time.
        files = [item.source] if mask_file is None else [item.source, mask_file]
        stamp, before = stamp_of(files, self.inpainter.bundle_digest, recipe), item.before
        if before is not None and self._is_unchanged(item, before, stamp):
            return _skipped(item, before, stamp)
        data = read_file(item.source)
        mask_data = None if mask_file is None else read_file(mask_file)
        key = result_key(data, mask_data, self.inpainter.bundle_digest, recipe)
        item = replace(item, result=replace(item.result, key=key, stamp=stamp))
        if self._is_done(item):
            assert before is not None
            return _skipped(item, before, stamp)
        return self._decoded(item, data, mask_file, mask_data)

    def _is_unchanged(self, item: Item, before: Result, stamp: str | None) -> bool:
        """Return whether sizes, inodes and times say that an earlier run did the same, so that nothing is read."""
        if self.options.verify or stamp is None or stamp != before.stamp:
            return False
        return self._is_done(_skipped(item, before, stamp))

    def _decoded(self, item: Item, data: bytes, mask_file: Path | None, mask_data: bytes | None) -> Item:
        """Return an item with its photo, its hole and its faces, of the bytes of its files."""
        name = str(item.source)
        photo = self.decode(data, name)
        if self.find_faces is None:
            check_square(photo.pixels, name, ", or pass alignment=… to find its faces")
        mask = None if mask_data is None else self.decode(mask_data, str(mask_file)).pixels
        hole, squares, note = self._hole(photo, item, mask, f"{mask_file} for {name}")
        result = replace(item.result, hole_ratio=float(hole.mean()), mask=self._warned(note, photo, hole, item))
        item = replace(item, photo=photo, hole=hole, result=result)
        if not hole.any():
            same_format = item.output.suffix.lower() == item.source.suffix.lower()
            return replace(item, copy=data if same_format else None)
        squares = self._squares(photo, item) if squares is None else squares
        return replace(item, faces=self._prepare(photo, hole, squares, name))

    def _hole(
        self, photo: Photo, item: Item, mask: Pixels | None, mask_name: str
    ) -> tuple[Hole, list[Square] | None, dict[str, Any]]:
        """Return the hole, the squares of the faces where it was looked for in them, and the note about it."""
        masks = self.options.masks
        note: dict[str, Any] = {"from": masks.kind}
        if mask is not None:
            return hole_from_mask(mask, photo.pixels.shape[:2], mask_name, masks.invert), None, note
        if masks.found:
            squares = self._squares(photo, item)
            hole, found = find_hole(photo.pixels, squares, self.inpainter, masks)
            return hole, squares, found.to_json()
        return hole_of(photo, masks, None, str(item.source)), None, note

    def _warned(self, note: dict[str, Any], photo: Photo, hole: Hole, item: Item) -> dict[str, Any]:
        """Return a note with what is odd about the hole, and with what the output will not hold."""
        odd = warning_of(hole, self.options.masks)
        warnings = [*([] if odd is None else [odd]), *(_said(photo, item) if hole.any() else ())]
        return {**note, "warnings": warnings} if warnings else note

    def _is_done(self, item: Item) -> bool:
        """Return whether an earlier run did the same; refuse an output of other origin that may not be replaced."""
        with system_errors(InputError, item.output, "cannot be looked for"):
            try:
                os.lstat(item.output)
            except (FileNotFoundError, NotADirectoryError):
                return False
        if self._was_made(item):
            return True
        if not item.replace:
            raise InputError(
                f"{item.output}: exists, and nothing says that showface wrote it; pass overwrite=True, or use another"
            )
        return False

    def _was_made(self, item: Item) -> bool:
        """Return whether the log says that an earlier run made this output from the same, and its mask is there."""
        before, result, masks = item.before, item.result, self.options.save_masks
        if before is None or before.status == "failed" or (before.output, before.key) != (result.output, result.key):
            return False
        return masks is None or key_of_mask(saved_mask(masks, item)) == result.key

    def _squares(self, photo: Photo, item: Item) -> list[Square] | None:
        """Return the squares of the faces in a picture; None where it is an aligned face itself."""
        if self.find_faces is None:
            return None
        found = self.find_faces(photo.pixels, item.relative.as_posix())
        if not found:
            raise InputError(f"{item.source}: no face was found; give its landmarks")
        return [square_of(landmarks, photo.pixels.shape[:2], str(item.source)) for landmarks in found]

    def _face(self, pixels: Pixels, hole: Hole, square: Square | None, name: str) -> PreparedFace:
        seen = None
        if self.options.masks.kind == "occlusion":
            seen, _ = self.inpainter.prepare(pixels, np.zeros_like(hole), name)
        return PreparedFace(*self.inpainter.prepare(pixels, hole, name), square, seen)

    def _prepare(self, photo: Photo, hole: Hole, squares: list[Square] | None, name: str) -> tuple[PreparedFace, ...]:
        if squares is None:
            return (self._face(photo.pixels, hole, None, name),)
        owner = owners(squares, hole)
        lost = np.count_nonzero(hole & (owner < 0))
        if lost:
            raise InputError(
                f"{name}: {lost / np.count_nonzero(hole):.1%} of the hole lies outside the squares of the "
                f"{len(squares)} faces found; give the landmarks of the others, or a smaller mask"
            )
        needed = [square for index, square in enumerate(squares) if (owner == index).any()]
        cuts = [cut_out(photo.pixels, hole, square, self.inpainter.image_size) for square in needed]
        return tuple(self._face(*cut, square, name) for cut, square in zip(cuts, needed, strict=True))


def _skipped(item: Item, before: Result, stamp: str | None) -> Item:
    """Return an item that an earlier run has done, with what its line says."""
    result = replace(
        item.result, status="skipped", hole_ratio=before.hole_ratio, key=before.key, mask=before.mask, stamp=stamp
    )
    return replace(item, result=result)
