"""One input on its way through a run: a record that every step returns with more filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import InputError
from ..faces.align import Square
from ..faces.mask_picture import Hole
from ..faces.tensors import FloatArray
from ..images.codec import Photo
from .results_log import Result

NOTHING_KNOWN = Result("", "", "failed")


@dataclass(frozen=True, slots=True)
class PreparedFace:
    """One face that waits for its batch: ``image`` [3, size, size], ``mask`` [1, size, size].

    ``square`` tells where it goes in an unaligned picture; None where the whole picture is the face. ``seen`` is the
    face as it came, [3, size, size], kept where its completion is compared with it.
    """

    image: FloatArray
    mask: FloatArray
    square: Square | None
    seen: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One input. Listing it gives the paths, the log what was known, reading the pixels, the networks the faces.

    Attributes:
        source: the image file.
        relative: its path below the input folder; of a single image its name.
        output: path of its result.
        error: why it cannot even be listed.
        result: what will be reported, filled in as far as it is known.
        before: the last result of this input in the log.
        replace: whether an existing output may be replaced.
        photo: the decoded picture; None as long as it is not read, and where nothing is left to do.
        hole: (H, W) of the picture, True = to be completed.
        faces: those that complete a part of the hole; none where the picture is only to be encoded or copied.
        copy: the input's own bytes, where they are the output.
        completed: what the networks made of each face, [3, size, size], or why they failed on it.
    """

    source: Path
    relative: Path
    output: Path
    error: str | None = None
    result: Result = NOTHING_KNOWN
    before: Result | None = None
    replace: bool = False
    photo: Photo | None = None
    hole: Hole | None = None
    faces: tuple[PreparedFace, ...] = ()
    copy: bytes | None = None
    completed: Sequence[NDArray[Any] | InputError] = ()

    @property
    def final(self) -> bool:
        """Whether nothing is left to do but to report the result."""
        return self.photo is None

    @property
    def weight(self) -> int:
        """Bytes that it holds."""
        pixels = 0 if self.photo is None else self.photo.pixels.nbytes
        hole = 0 if self.hole is None else self.hole.nbytes
        faces = sum(face.image.nbytes * (1 if face.seen is None else 2) + face.mask.nbytes for face in self.faces)
        return pixels + hole + faces + len(self.copy or b"")
