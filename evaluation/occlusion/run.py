"""All that is measured of an occluder: what it finds, what it finds where nothing is, and what a found mask costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showface.runtime.errors import UsageError, system_errors
from showface.runtime.faces.occlusion import OcclusionSettings
from showface.runtime.images.codec import SUFFIXES
from showface.runtime.inpainter import Inpainter
from showface.training.config import TrainConfig
from showface.training.config_reader import config_from_toml

from .end_to_end import compare_masks, summarise_pairs
from .scores import false_alarms, finder_of, read_groups, read_labelled, score_face, summarise


@dataclass(frozen=True, slots=True)
class OccluderFaces:
    """The aligned faces that an occluder is measured on.

    Attributes:
        labelled: folders of pictures and their labels.
        clean: folders of faces that nothing covers.
        pictures: another folder to look for the pictures of labels in.
        without: text file of stems that do not count as clean.
        groups: CSV of names and their groups; see :func:`~.occluder.read_groups`.
    """

    labelled: Sequence[Path] = ()
    clean: Sequence[Path] = ()
    pictures: Path | None = None
    without: Path | None = None
    groups: Path | None = None


@dataclass(frozen=True, slots=True)
class PastedThings:
    """What is pasted on the clean faces, to complete them end to end.

    Attributes:
        config: of the occluder's training; its held-out cut-outs are pasted.
        data: folder that the config's paths are relative to.
        limit: faces; None takes all.
    """

    config: Path
    data: Path
    limit: int | None = None


def measure_occluder(
    inpainter: Inpainter, settings: OcclusionSettings, faces: OccluderFaces, pasted: PastedThings | None = None
) -> dict[str, Any]:
    """Return ``kinds``, ``faces``, ``false_alarms``, ``alarms``, and with ``pasted`` ``end_to_end`` and ``pairs``.

    Raises:
        UsageError: a folder, list, label or config is missing or wrong.
    """
    find, size = finder_of(inpainter, settings), inpainter.image_size
    named = {} if faces.groups is None else read_groups(faces.groups)
    result: dict[str, Any] = {"schema_version": 1, "bundle": inpainter.bundle_digest, "threshold": settings.threshold}
    scores = []
    for folder in faces.labelled:
        scores += [score_face(face, find) for face in read_labelled(folder, size, faces.pictures, named)]
    result["kinds"], result["faces"] = summarise(scores), [asdict(score) for score in scores]
    result["false_alarms"], result["alarms"] = {}, {}
    left_out, ends = _stems(faces.without), list[Path]()
    for folder in faces.clean:
        paths = _clean_faces(folder, left_out)
        rates, worst = false_alarms(paths, find, size, named)
        result["false_alarms"][str(folder)], result["alarms"][str(folder)] = rates, worst
        ends += paths
    if pasted is not None:
        run = config_from_toml(TrainConfig, pasted.config)
        pairs = compare_masks(ends[: pasted.limit], inpainter, find, run, pasted.data, settings.margin)
        result["end_to_end"], result["pairs"] = summarise_pairs(pairs), [asdict(pair) for pair in pairs]
    return result


def _stems(path: Path | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    with system_errors(UsageError, path, "cannot be read"):
        return frozenset(path.read_text(encoding="utf-8").split())


def _clean_faces(folder: Path, left_out: frozenset[str]) -> list[Path]:
    with system_errors(UsageError, folder, "cannot be read"):
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.stem not in left_out)
    if not paths:
        raise UsageError(f"{folder}: no faces")
    return paths
