"""List the images of a run, and where their results go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import overload

from ..errors import UsageError, system_errors
from ..faces.masks import APPLE_DOUBLE
from ..images.codec import OTHER_IMAGE_SUFFIXES, SUFFIXES
from ..images.headers import plain_suffix
from .item import Item

logger = logging.getLogger(__name__)

NOT_READ = f"of the formats of images, showface reads {', '.join(SUFFIXES)}"
BESIDE = "Macs write such files beside others; they hold no pictures"
LINKED = "links to folders are not followed"


class Items(Sequence[Item]):
    """The inputs of a run in name order; names alone are held, so that a hundred thousand need few megabytes."""

    def __init__(self, source: Path, output: Path, names: Sequence[str], errors: Mapping[str, str], suffix: str | None):
        self.source, self.output, self.names, self.errors, self.suffix = source, output, names, errors, suffix

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Items: ...

    def __getitem__(self, index: int | slice) -> Item | Items:
        if isinstance(index, slice):
            return Items(self.source, self.output, self.names[index], self.errors, self.suffix)
        name = self.names[index]
        error = self.errors.get(name)
        output = self.output / (name if self.suffix is None or error else renamed(name, self.suffix))
        return Item(self.source / name, Path(name), output, error)


def renamed(name: str, suffix: str) -> str:
    """Return the relative path ``name`` with another suffix; one of the same format stays (``.jpeg``, ``.JPG``).

    >>> renamed("group/one.bmp", ".png"), renamed("two.JPEG", ".jpg")
    ('group/one.png', 'two.JPEG')
    """
    path = PurePosixPath(name)
    return name if plain_suffix(path.suffix) == suffix else str(path.with_suffix(suffix))


def list_images(source: Path, masks: Path | None) -> list[Item]:
    """List by name, as items without an output, one image or those below a folder, the folder of masks left out.

    Raises:
        UsageError: there is nothing, or it cannot be read.
    """
    with system_errors(UsageError, source, "cannot be read"):
        if source.is_file():
            return [Item(source, Path(source.name), Path())]
        names, errors = _names(source, masks)
    return [Item(source / name, Path(name), Path(), errors.get(name)) for name in names]


def _names(source: Path, masks: Path | None) -> tuple[list[str], dict[str, str]]:
    """Return the relative paths of the images in a folder, in order, and the errors of those that cannot be listed."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    errors: dict[str, str] = {}
    omitted: dict[str, list[str]] = {}
    names = sorted(_walk(source, masks, errors, omitted), key=lambda name: name.split("/"))
    for reason, some in omitted.items():
        logger.info("%d passed over, such as %s: %s", len(some), min(some), reason)
    if not names:
        raise UsageError(f"{source}: no images found ({', '.join(SUFFIXES)})")
    return names, errors


def _walk(source: Path, masks: Path | None, errors: dict[str, str], omitted: dict[str, list[str]]) -> Iterator[str]:
    """Yield the images below a folder; collect folders that cannot be read, and names that are omitted by reason."""
    # Path.resolve raises on a loop of symbolic links, os.path.realpath does not.
    excluded = None if masks is None else os.path.realpath(masks)
    failures: list[OSError] = []
    for folder, children, files in os.walk(source, onerror=failures.append):
        place = Path(folder)
        children[:] = [c for c in children if os.path.realpath(place / c) != excluded]
        prefix = "" if place == source else place.relative_to(source).as_posix() + "/"
        with os.scandir(folder) as entries:  # to ask each of 100,000 files whether it is a link would take a second
            links = {entry.name for entry in entries if entry.is_symlink()}
        for name in filter(links.__contains__, children):
            omitted.setdefault(LINKED, []).append(prefix + name)
        # All but links lie where their folder does: only these are resolved.
        parent, mask_here = os.path.split(excluded or "")
        if parent != os.path.realpath(folder):
            mask_here = ""
        for name in files:
            if name.startswith(APPLE_DOUBLE):
                omitted.setdefault(BESIDE, []).append(prefix + name)
                continue
            # A dot at either end makes no suffix, as in a path: making one of each of 100,000 names takes a second.
            dot = name.rfind(".")
            suffix = name[dot:].lower() if 0 < dot < len(name) - 1 else ""
            if suffix in OTHER_IMAGE_SUFFIXES:
                omitted.setdefault(NOT_READ, []).append(prefix + name)
            if suffix not in SUFFIXES:
                continue
            if name != mask_here and not (name in links and os.path.realpath(place / name) == excluded):
                yield prefix + name
    for error in failures:
        path = Path(error.filename)
        name = path.relative_to(source).as_posix()
        errors[name] = f"{path}: folder cannot be read: {error.strerror}"
        yield name


def plan_items(
    source: Path,
    output: Path,
    masks: Path | None,
    suffix: str | None = None,
    distinct_stems: bool = False,
    mask_suffix: str | None = None,
) -> Sequence[Item]:
    """List the inputs in name order and check that input and output fit together.

    Args:
        source: an image, or a folder that is searched recursively.
        output: a folder; for one image also an image name.
        masks: a mask folder, which is not searched for inputs.
        suffix: of all outputs, such as ``.png``; None keeps the suffix of each input.
        distinct_stems: give an error to a file whose mask would be saved under the name of another's.
        mask_suffix: what a mask beside its image adds to the stem of that; such files are no inputs.

    Raises:
        UsageError: nothing to do, or the output is a file, lies inside the input, has the suffix of a
            format that is not written, or cannot be looked into.
    """
    with system_errors(UsageError, output, "cannot be read"):
        if source.is_file():
            return [Item(source, Path(source.name), _target(source, output, suffix))]
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is a file; the output of a folder must be a folder")
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
            raise UsageError(f"{output}: lies inside the input folder {source}; choose a folder outside it")
    with system_errors(UsageError, source, "cannot be read"):
        names, errors = _names(source, masks)
    if mask_suffix is not None:
        masks_of = {f"{PurePosixPath(name).with_suffix('')}{mask_suffix}" for name in names}
        names = [name for name in names if str(PurePosixPath(name).with_suffix("")) not in masks_of]
    if suffix is not None:
        _refuse_same_names(names, lambda name: renamed(name, suffix), errors)
    if distinct_stems:
        _refuse_same_names(names, lambda name: str(PurePosixPath(name).with_suffix(".png")), errors)
    return Items(source, output, names, errors, suffix)


def _refuse_same_names(names: Sequence[str], target: Callable[[str], str], errors: dict[str, str]) -> None:
    """Give an error to each input whose output or saved mask has the name of an earlier one's."""
    first: dict[str, str] = {}
    for name in names:
        owner = first.setdefault(target(name), name)
        if owner != name:
            errors.setdefault(name, f"{name}: would be written to the same file as {owner}; rename one of them")


def _target(source: Path, output: Path, wanted: str | None) -> Path:
    """Return the output file of a single image; ``wanted`` is the suffix where the output is a folder."""
    suffix = output.suffix.lower()
    if suffix in OTHER_IMAGE_SUFFIXES and not output.is_dir():
        raise UsageError(f"{output}: showface does not write {suffix}; use one of {', '.join(SUFFIXES)}")
    named = suffix in SUFFIXES and not output.is_dir()
    if named and wanted is not None and renamed(output.name, wanted) != output.name:
        raise UsageError(f"{output}: its suffix is not that of the format; leave the format out")
    target = output if named else output / (source.name if wanted is None else renamed(source.name, wanted))
    if target.exists() and target.samefile(source):
        raise UsageError(f"{output}: is the input itself")
    if not named and output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; give a folder or an image name")
    return target
