"""One picture of the best, the median and the worst face of each bucket, by PSNR."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.batch.sheets.contact_sheet import HIDDEN, TILE
from showface.runtime.files import sealed, write_side
from showface.runtime.images.codec import encode_photo

from ..faces import BUCKETS, Face, pair_files, read_pair
from ..metrics import Rgb
from .methods import Method
from .scores import ImageScores, Report

CAPTION_HEIGHT = 20  # pixels
INK = 40  # grey level of the captions
GAP = 8  # pixels between best, median and worst


def chosen_rows(report: Report, bucket: str) -> dict[str, int]:
    """Return the index in the bucket of its ``best``, ``median`` and ``worst`` image by PSNR; ties by index."""
    rows = [row for row in report.rows if row.bucket == bucket]
    order = sorted(range(len(rows)), key=lambda k: -rows[k].psnr)
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}


def write_contact_sheet(
    path: Path, report: Report, method: Method, images: Path, masks: Path, overwrite: bool = False
) -> None:
    """Write a row a bucket, each with three faces as input with the hole greyed | result | ground truth.

    The chosen faces are completed once more: no run holds the results of all faces.

    Args:
        path: path of the picture; its suffix decides the format.
        report: of the method on these folders; decides the faces.
        method: completes them.
        images: folder of photographs, as for ``evaluate``.
        masks: folder of ratio bins, as for ``evaluate``.
        overwrite: replace what somebody else wrote there.

    Raises:
        InputError: the format cannot be written.
        UsageError: a face or mask can no longer be read.
        ShowfaceError: as :func:`showface.runtime.files.write_side`.
    """
    lines = []
    for bucket in BUCKETS:
        chosen = chosen_rows(report, bucket)
        pairs = pair_files(images, masks, bucket)
        faces = [read_pair(pairs[k]) for k in chosen.values()]
        rows = [row for row in report.rows if row.bucket == bucket]
        parts = [
            _captioned(_strip(face, result), rank, rows[k])
            for face, result, (rank, k) in zip(faces, method(faces), chosen.items(), strict=True)
        ]
        gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
        lines.append(np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1))
    write_side(path, sealed(encode_photo(np.concatenate(lines), path.suffix, lossy=True)), overwrite)


def _strip(face: Face, result: Rgb) -> NDArray[np.uint8]:
    hidden = face.rgb.copy()
    hidden[face.hole] = HIDDEN
    tiles = [cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA) for image in (hidden, result, face.rgb)]
    return np.asarray(np.concatenate(tiles, axis=1), np.uint8)


def _captioned(strip: NDArray[np.uint8], rank: str, row: ImageScores) -> NDArray[np.uint8]:
    caption = np.full((CAPTION_HEIGHT, strip.shape[1], 3), 255, np.uint8)
    text = f"{row.bucket}% {rank}: {row.psnr:.2f} dB  {row.name}"
    # OpenCV's letters are ASCII only.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(caption, plain, (4, CAPTION_HEIGHT - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([caption, strip])
