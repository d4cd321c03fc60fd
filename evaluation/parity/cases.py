"""What is compared: real faces, batches of them, and inputs made on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.runtime.stages import CATEGORIES, LABELS
from showface.runtime.untrusted.terminal import printable

from ..faces import face_inputs

Array = NDArray[Any]
MAX_BATCH = 8
ONE_PIXEL_HOLES = ((0, 0), (0, 1), (1, 1), (2, 2))  # in quarters of the side: corner, edge, middle


@dataclass(frozen=True, slots=True)
class Case:
    """One input of the chain.

    Attributes:
        name: unique in a run.
        inputs: ``image`` [B, 3, H, W] in [-1, 1] and ``mask`` [B, 1, H, W], 1 = hole.
        given: tensors of the chain that are replaced on both sides, such as labels made on purpose.
    """

    name: str
    inputs: Mapping[str, Array]
    given: Mapping[str, Array] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the inputs and of what is given."""
        total = hashlib.sha256()
        for name, array in sorted({**self.inputs, **self.given}.items()):
            total.update(f"{name} {array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def image_name(self, index: int) -> str:
        """Return the name of one image of the batch."""
        return self.name if len(self.inputs["image"]) == 1 else f"{self.name}[{index}]"


def face_cases(images: Path, masks: Path, image_size: int, limit: int | None = None) -> Iterator[Case]:
    """Read aligned faces one by one; see :func:`showface.evaluation.faces.face_inputs`."""
    for name, image, mask in face_inputs(images, masks, image_size, limit):
        yield Case(printable(name), {"image": image[None], "mask": mask[None]})


def array_cases(image: Array, mask: Array, prefix: str) -> Iterator[Case]:
    """Yield one case for each of N faces in memory."""
    for index in range(len(image)):
        yield Case(f"{prefix}-{index}", {"image": image[index : index + 1], "mask": mask[index : index + 1]})


def generated_cases(image: Array, mask: Array, max_batch: int = MAX_BATCH) -> Iterator[Case]:
    """Yield inputs made on purpose from real faces.

    Args:
        image: [N, 3, H, W] in [-1, 1], zero in the hole.
        mask: [N, 1, H, W], 1 = hole.
        max_batch: the largest batch to compare, beside 1 and 2.
    """
    first = next((k for k in range(len(mask)) if mask[k].any()), 0)
    face, hole = image[first : first + 1], mask[first : first + 1]

    def case(name: str, pixels: Array, holes: Array, given: Mapping[str, Array] | None = None) -> Case:
        blanked = np.where(holes > 0, np.float32(0), pixels).astype(np.float32)
        return Case(name, {"image": blanked, "mask": holes.astype(np.float32)}, given or {})

    yield case("empty-mask", face, np.zeros_like(hole))
    yield case("full-mask", face, np.ones_like(hole))
    yield case("one-pixel-holes", face, _one_pixel_holes(hole))
    yield case("constant-image", np.full_like(face, 0.25), hole)
    yield case("extreme-contrast", np.where(_checkers(face.shape), np.float32(1), np.float32(-1)), hole)
    for name, labels in _label_cases(hole).items():
        yield case(name, face, hole, {LABELS: labels})
    for batch in sorted({1, 2, max_batch}):
        chosen = [k % len(image) for k in range(batch)]
        yield Case(f"batch-{batch}", {"image": image[chosen], "mask": mask[chosen]})


def _one_pixel_holes(hole: Array) -> Array:
    holes = np.zeros_like(hole)
    quarter = hole.shape[2] // 4
    for row, column in ONE_PIXEL_HOLES:
        holes[0, 0, row * quarter, column * quarter] = 1.0
    return holes


def _checkers(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a checkerboard of 8-pixel fields: sharp edges in both directions, and both ends of the range."""
    rows, columns = np.indices(shape[2:]) // 8
    return np.broadcast_to((rows + columns) % 2 == 0, shape)


def _label_cases(hole: Array) -> dict[str, Array]:
    """Return labels [1, H, W] of which most categories are absent, and of which one lies in the hole alone."""
    skin, nose, background = (CATEGORIES.index(name) for name in ("skin", "nose", "background"))
    absent = np.full(hole.shape[:1] + hole.shape[2:], skin, np.int32)
    absent[:, : hole.shape[2] // 4] = background
    return {
        "category-absent": absent,
        "category-hidden": np.where(hole[:, 0] > 0, np.int32(nose), absent).astype(np.int32),
    }
