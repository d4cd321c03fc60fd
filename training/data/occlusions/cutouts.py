"""Cut-outs to paste over faces, read from any folder of pictures with an alpha channel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError

from ...occluder.config import CutoutConfig, OcclusionConfig
from ..pictures import read_picture

SUFFIXES = (".webp", ".png")
LONGEST = 288  # pixels of the longer side in memory: more than a cut-out ever covers of a face of 256
OPAQUE = 16  # alpha from which a pixel belongs to the thing
VARIANT = re.compile(r"(_left|_right|-1f3f.)$")  # the same thing from another side or in another skin tone

Rgba = NDArray[np.uint8]  # [H, W, 4], sRGB


@dataclass(frozen=True, slots=True)
class Cutout:
    """One thing to paste; ``points`` is where the fingers of a hand point in the picture."""

    rgba: Rgba
    name: str
    points: str


@dataclass(frozen=True, slots=True)
class Cutouts:
    """The cut-outs of each kind, with the probability of each to be drawn; and textures [H, W, 3]."""

    kinds: dict[str, tuple[Cutout, ...]]
    shares: dict[str, NDArray[np.float64]]
    textures: tuple[NDArray[np.uint8], ...]

    def draw(self, rng: np.random.Generator, kind: str) -> Cutout | None:
        """Draw a cut-out of ``kind``; None where there are none."""
        found = self.kinds.get(kind)
        return None if not found else found[int(rng.choice(len(found), p=self.shares[kind]))]


def read_cutouts(config: OcclusionConfig, data: Path, held_out: bool) -> Cutouts:
    """Read the cut-outs to train on, or those that are held out.

    Raises:
        UsageError: a folder or picture is missing, unreadable or without transparency; the message names it.
    """
    kinds: dict[str, list[Cutout]] = {}
    weights: dict[str, list[float]] = {}
    for name, entry in config.cutouts.items():
        files = _chosen_files(data / entry.folder, entry, name)
        files = [f for f, out in zip(files, _held_out(files, config.holdout_every), strict=True) if out == held_out]
        for path in files:
            kinds.setdefault(entry.kind, []).append(Cutout(read_cutout(path), path.stem, entry.points))
            weights.setdefault(entry.kind, []).append(entry.weight / len(files))
    shares = {kind: np.asarray(w) / sum(w) for kind, w in weights.items()}
    textures = () if config.textures is None else _read_textures(data / config.textures, config.holdout_every, held_out)
    return Cutouts({kind: tuple(found) for kind, found in kinds.items()}, shares, textures)


def _chosen_files(folder: Path, entry: CutoutConfig, name: str) -> list[Path]:
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if entry.only:
        found = [p for p in found if p.stem.startswith(entry.only)]
    if entry.without:
        found = [p for p in found if not p.stem.startswith(entry.without)]
    if not found:
        raise UsageError(f"{folder}: no cut-outs (PNG or WebP with transparency) for occlusion.cutouts.{name}")
    return found


def _held_out(files: Sequence[Path], every: int) -> list[bool]:
    """Tell which files are held out: whole things, all sides and tones of them, and neighbours together."""
    things = sorted({VARIANT.sub("", p.stem) for p in files})
    block = max(1, len(things) // (3 * every))  # neighbours by name are mostly one person's hands
    out = {thing for i, thing in enumerate(things) if i // block % every == 1}
    return [VARIANT.sub("", p.stem) in out for p in files]


def read_cutout(path: Path) -> Rgba:
    """Read one cut-out, cut to what is not transparent, at most ``LONGEST`` pixels long.

    Raises:
        UsageError: it cannot be read, has no alpha channel or shows nothing.
    """
    image = read_picture(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8:
        raise UsageError(f"{path}: has 16 bits a channel; save it with 8")
    if image.ndim != 3 or image.shape[2] != 4:
        raise UsageError(f"{path}: has no alpha channel; a cut-out needs one (PNG or WebP with transparency)")
    rows, columns = (np.flatnonzero((image[..., 3] >= OPAQUE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise UsageError(f"{path}: is transparent all over")
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    factor = LONGEST / max(image.shape[:2])
    if factor < 1:
        # OpenCV resizes each channel for itself: colour under full transparency would bleed into the edge.
        alpha = image[..., 3:].astype(np.float32) / 255
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        small = cv2.resize(np.dstack([image[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_AREA)
        colour = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
        image = np.dstack([colour.clip(0, 255), small[..., 3:] * 255]).round().astype(np.uint8)
    return np.ascontiguousarray(image[..., (2, 1, 0, 3)])


def _read_textures(folder: Path, every: int, held_out: bool) -> tuple[NDArray[np.uint8], ...]:
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*SUFFIXES, ".jpg")) if folder.is_dir() else []
    if not files:
        raise UsageError(f"{folder}: no pictures; mend occlusion.textures")
    textures = []
    for path, out in zip(files, _held_out(files, every), strict=True):
        image = read_picture(path, cv2.IMREAD_COLOR)
        if out == held_out:
            textures.append(np.asarray(image[..., ::-1], np.uint8))
    return tuple(textures)
