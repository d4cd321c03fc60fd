"""What a found mask costs: held-out cut-outs pasted on faces, completed under the true and under the found mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from showface.runtime.faces.occlusion import grown
from showface.runtime.inpainter import Inpainter
from showface.training.config import TrainConfig
from showface.training.data.dataset import Stream, generator
from showface.training.data.occlusions.cutouts import read_cutouts
from showface.training.data.occlusions.kinds import KINDS, Supply
from showface.training.data.occlusions.layers import COVERED, Scene
from showface.training.data.occlusions.synthesis import share_table

from ..metrics import psnr, ssim
from .scores import Finder, read_rgb

NEGATIVES = ("outside",)  # kinds that cover nothing


@dataclass(frozen=True, slots=True)
class MaskPair:
    """One face completed twice: PSNR in dB and SSIM over the whole picture against the face without an occluder."""

    name: str
    kind: str
    true_psnr: float
    found_psnr: float
    true_ssim: float
    found_ssim: float


def compare_masks(
    paths: Sequence[Path], inpainter: Inpainter, find: Finder, config: TrainConfig, data: Path, margin: int
) -> list[MaskPair]:
    """Paste a held-out thing on each face and complete it under both masks.

    The faces in ``paths`` are aligned, nothing covers them, and they were not trained on. The cut-outs are those that
    the occluder's ``config``, relative to ``data``, holds out, by its shares. The true mask grows by ``margin`` pixels,
    as the found one does.

    Raises:
        UsageError: a cut-out or a face cannot be read.
    """
    cutouts = read_cutouts(config.occlusion, data, held_out=True)
    names, shares = share_table(config.occlusion.shares)
    chosen = [(n, s) for n, s in zip(names, shares, strict=True) if n in KINDS and n not in NEGATIVES]
    kinds, weights = [n for n, _ in chosen], np.asarray([s for _, s in chosen])
    pairs, size = [], inpainter.image_size
    for index, path in enumerate(paths):
        rng = generator(Stream.HELD_OUT_OCCLUSION, config.seed, 1, index)
        clean = read_rgb(path, size)
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        scene = Scene(np.asarray(clean / 255, np.float32), np.zeros((size, size), np.uint8))
        other = read_rgb(paths[(index + 1) % len(paths)], size).astype(np.float32) / 255
        KINDS[kind](rng, scene, Supply(cutouts, cutouts.textures, lambda other=other: other))  # type: ignore[misc]
        covered = (scene.picture.clip(0, 1) * 255).round().astype(np.uint8)
        true, found = grown(scene.labels == COVERED, margin), find(covered).hole
        results = inpainter.complete_batch([(covered, true), (covered, found)])
        scores = [(psnr(result, clean), ssim(result, clean)) for result in results]
        pairs.append(MaskPair(path.stem, kind, scores[0][0], scores[1][0], scores[0][1], scores[1][1]))
    return pairs


def summarise_pairs(pairs: Sequence[MaskPair]) -> dict[str, dict[str, Any]]:
    """Return for each kind, and for ``all``, the mean figures under both masks."""
    kinds = [*sorted({pair.kind for pair in pairs}), "all"]
    rows = {}
    for kind in kinds:
        mine = [pair for pair in pairs if kind in (pair.kind, "all")]
        fields = ("true_psnr", "found_psnr", "true_ssim", "found_ssim")
        rows[kind] = {"faces": len(mine), **{f: float(np.mean([getattr(p, f) for p in mine])) for f in fields}}
    return rows
