"""Which files a set of faces consists of: image folders, CelebAMask-HQ and FFHQ, and their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.faces.masks import APPLE_DOUBLE

from ..config import SourceConfig, TrainConfig, ValidationConfig
from .labels import PARTS, LabelFile
from .pictures import read_picture

MEND = "check the data folder and the key 'images'"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

CELEBAHQ_IMAGES = "CelebA-HQ-img"
CELEBAHQ_LABELS = "CelebAMask-HQ-mask-anno"
CELEBAHQ_COUNT = 30_000
CELEBAHQ_TRAIN = 28_000  # the others are the test split
CELEBAHQ_FOLDER = 2_000  # faces in each folder of part masks
FFHQ_TEST = 2_000


@dataclass(frozen=True, slots=True)
class FaceFiles:
    """The files of one source, image and labels of the same face at the same index."""

    images: tuple[Path, ...]
    labels: tuple[LabelFile, ...] | None


def image_files(folder: Path) -> list[Path]:
    """Return the image files of ``folder`` sorted by name, without those that Macs write beside others.

    Raises:
        UsageError: the folder is missing or holds no image.
    """
    found = folder.glob("*") if folder.is_dir() else ()
    named = (p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(APPLE_DOUBLE))
    files = sorted(named)
    if not files:
        raise UsageError(f"{folder}: no such folder, or no images in it")
    return files


def _source_images(folder: Path) -> list[Path]:
    try:
        return image_files(folder)
    except UsageError as error:
        raise UsageError(f"{error}; {MEND}", "data") from error


def read_face(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a photograph as RGB [size, size, 3], resized by area.

    Raises:
        UsageError: as :func:`read_picture`.
    """
    image = cv2.resize(read_picture(path, cv2.IMREAD_COLOR), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def open_sources(config: TrainConfig, data: Path, with_labels: bool, held_out: bool) -> dict[str, FaceFiles]:
    """List the faces of all sources by name: those to train on, or those that are held out.

    Of each source the faces 0, k, 2k … are held out, k being ``validation.holdout_every``. Given are
    at most ``validation.faces`` of them, evenly spread over the sources and in each source.

    Raises:
        UsageError: as :func:`open_source`; nothing is left to train on, or nothing is held out.
    """
    found = {}
    for name, source in config.sources.items():
        try:
            found[name] = open_source(source, data, with_labels)
        except UsageError as error:
            raise UsageError(f"sources.{name}: {error.text}", error.argument) from error
    if not found:
        raise UsageError("sources: there is none; add a table such as [sources.faces] with the key 'images'")
    if config.validation is not None:
        return _held_out(found, config.validation) if held_out else _trained_on(found, config.validation)
    if held_out:
        raise UsageError("validation: no faces are held out; add the table [validation] to the config")
    return found


def _trained_on(sources: Mapping[str, FaceFiles], validation: ValidationConfig) -> dict[str, FaceFiles]:
    every = _checked_every(validation)
    kept = {name: _pick(files, [i for i in range(len(files.images)) if i % every]) for name, files in sources.items()}
    for name, files in kept.items():
        if not files.images:
            raise UsageError(f"sources.{name}: validation.holdout_every = {every} leaves no face to train on; raise it")
    return kept


def _held_out(sources: Mapping[str, FaceFiles], validation: ValidationConfig) -> dict[str, FaceFiles]:
    every = _checked_every(validation)
    held = {name: range(0, len(files.images), every) for name, files in sources.items()}
    taken = dict.fromkeys(held, 0)
    for _ in range(min(validation.faces, sum(map(len, held.values())))):
        taken[min((n for n in held if taken[n] < len(held[n])), key=lambda n: taken[n])] += 1
    return {
        name: _pick(files, [held[name][len(held[name]) * i // taken[name]] for i in range(taken[name])])
        for name, files in sources.items()
    }


def _checked_every(validation: ValidationConfig) -> int:
    if validation.holdout_every < 2 or validation.faces < 1:
        raise UsageError(
            f"validation: holdout_every = {validation.holdout_every} must be at least 2, "
            f"and faces = {validation.faces} at least 1"
        )
    return validation.holdout_every


def _pick(files: FaceFiles, indices: Sequence[int]) -> FaceFiles:
    labels = None if files.labels is None else tuple(files.labels[i] for i in indices)
    return FaceFiles(tuple(files.images[i] for i in indices), labels)


def face_probability(sources: Mapping[str, tuple[float, int]], relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability [N] of each face to be drawn.

    Args:
        sources: weight and number of faces of each source by name; the weights are normalised.
        relative: [N], how much a face weighs among those of its source.

    Raises:
        UsageError: a weight is not positive.
    """
    for name, (weight, _) in sources.items():
        if not weight > 0:
            raise UsageError(f"sources.{name}.weight = {weight}: must be positive; leave the source out instead")
    weights, counts = zip(*sources.values(), strict=True)
    shares = np.split(relative, np.cumsum(counts)[:-1])
    parts = [weight * share / share.sum() for weight, share in zip(weights, shares, strict=True)]
    return np.concatenate(parts) / sum(weights)


def open_source(source: SourceConfig, data: Path, with_labels: bool = False) -> FaceFiles:
    """List the faces of one split of a source.

    Args:
        source: what to list; its paths are relative to ``data``.
        data: the data folder.
        with_labels: list the labels too; otherwise they are not looked for.

    Raises:
        UsageError: a folder or a label is missing, a name that should be a number is none, or the
            layout has no such split; the message names the file and the config key.
    """
    if source.layout == "folder":
        return _open_folder(source, data, with_labels)
    if source.labels is not None:
        raise UsageError(f"labels = {source.labels!r}: layout {source.layout!r} takes none; leave the key out")
    if source.layout == "celebahq":
        return _open_celebahq(source, data / source.images, with_labels)
    if with_labels:
        raise UsageError(f"{data / source.images}: FFHQ has no labels; use a source of another 'layout'")
    return _open_ffhq(source, data / source.images)


def _open_folder(source: SourceConfig, data: Path, with_labels: bool) -> FaceFiles:
    if source.split != "all":
        raise UsageError(
            f"{data / source.images}: split = {source.split!r}, but only the layouts 'celebahq' and 'ffhq' have "
            "splits; set split = 'all'"
        )
    images = _source_images(data / source.images)
    if not with_labels:
        return FaceFiles(tuple(images), None)
    if source.labels is None:
        raise UsageError(f"{data / source.images}: labels are needed; add the key 'labels' to the source")
    folder = data / source.labels
    stems = {path.stem for path in folder.glob("*.png")}
    for image in images:
        if image.stem not in stems:
            raise UsageError(f"{folder / image.stem}.png: no label for {image}; add it or mend the key 'labels'")
    return FaceFiles(tuple(images), tuple(LabelFile(folder / f"{image.stem}.png") for image in images))


def _numbered(files: Sequence[Path], layout: str) -> dict[int, Path]:
    """Return the files by the number that is their name, in order."""
    numbered: dict[int, Path] = {}
    for path in files:
        if not (path.stem.isascii() and path.stem.isdecimal()):
            raise UsageError(f"{path}: not named by a number as layout = {layout!r} expects; remove it or use 'folder'")
        other = numbered.setdefault(int(path.stem), path)
        if other is not path:
            raise UsageError(f"{path}: has the same number as {other}; layout = {layout!r} holds each only once")
    return dict(sorted(numbered.items()))


def _open_celebahq(source: SourceConfig, root: Path, with_labels: bool) -> FaceFiles:
    folder = root / CELEBAHQ_IMAGES
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; 'images' must be the root of CelebAMask-HQ, or the layout another")
    numbered = _numbered(_source_images(folder), source.layout)
    if max(numbered) >= CELEBAHQ_COUNT:
        raise UsageError(f"{numbered[max(numbered)]}: layout = 'celebahq' has the numbers 0-{CELEBAHQ_COUNT - 1} only")
    splits = {
        "all": range(CELEBAHQ_COUNT),
        "train": range(CELEBAHQ_TRAIN),
        "test": range(CELEBAHQ_TRAIN, CELEBAHQ_COUNT),
    }
    wanted = splits[source.split]
    images = {number: path for number, path in numbered.items() if number in wanted}
    if not images:
        raise UsageError(f"{folder}: no image of split = {source.split!r} ({wanted.start}-{wanted.stop - 1})")
    labels = _celebahq_labels(root / CELEBAHQ_LABELS, images) if with_labels else None
    return FaceFiles(tuple(images.values()), labels)


def _celebahq_labels(folder: Path, images: dict[int, Path]) -> tuple[LabelFile, ...]:
    stems = {n: folder / str(n // CELEBAHQ_FOLDER) / f"{n:05d}" for n in images}
    found: set[Path] = set()
    for parent in {stem.parent for stem in stems.values()}:  # one listing each: asking for every part takes minutes
        for path in parent.glob("*.png"):
            name, _, part = path.stem.partition("_")
            if part in PARTS:
                found.add(parent / name)
    for number, stem in stems.items():
        if stem not in found:
            raise UsageError(f"{stem}_*.png: no labels for {images[number]}; is the folder under 'images' complete?")
    return tuple(LabelFile(stem, parts=True) for stem in stems.values())


def _open_ffhq(source: SourceConfig, folder: Path) -> FaceFiles:
    found = sorted(p for pattern in ("*.png", "*/*.png") for p in folder.glob(pattern))
    if not found:
        raise UsageError(f"{folder}: no numbered PNG files found; {MEND}", "data")
    images = list(_numbered(found, source.layout).values())
    if source.split == "all":
        return FaceFiles(tuple(images), None)
    if len(images) <= FFHQ_TEST:
        raise UsageError(
            f"{folder}: {len(images)} files, but split = {source.split!r} needs more than the {FFHQ_TEST:,} of the "
            "test split; set split = 'all'"
        )
    return FaceFiles(tuple(images[-FFHQ_TEST:] if source.split == "test" else images[:-FFHQ_TEST]), None)
