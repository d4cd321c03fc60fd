"""List the images of a run, and where their results go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError, system_errors
from .images import SUFFIXES

# Suffixes that name an image that showface does not write: as an output surely no folder's name.
OTHER_IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bpg", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl",
    ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """One image that was found, ``relative`` to the input; ``error`` where it cannot even be listed."""

    path: Path
    relative: Path
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One input with its place in the output folder; ``error`` as in :class:`Listed`."""

    source: Path
    relative: Path
    output: Path
    error: str | None = None


def list_images(source: Path, masks: Path | None) -> list[Listed]:
    """List the images of ``source`` by name.

    Args:
        source: an image, or a folder that is searched recursively.
        masks: a mask folder, which is not searched.

    Raises:
        UsageError: there is nothing, or it cannot be read.
    """
    with system_errors(UsageError, source, "cannot be read"):
        if not source.exists():
            raise UsageError(f"{source}: no such file or folder")
        if source.is_file():
            return [Listed(source, Path(source.name))]
    found = sorted(_walk(source, masks), key=lambda image: image.relative)
    if not found:
        raise UsageError(f"{source}: no images found ({', '.join(SUFFIXES)})")
    return found


def _walk(source: Path, masks: Path | None) -> Iterator[Listed]:
    # Path.resolve raises on a loop of symbolic links, os.path.realpath does not.
    excluded = None if masks is None else os.path.realpath(masks)
    errors: list[OSError] = []
    for folder, children, names in os.walk(source, onerror=errors.append):
        place = Path(folder)
        children[:] = [c for c in children if os.path.realpath(place / c) != excluded]
        for name in names:
            path = place / name
            if path.suffix.lower() in SUFFIXES and os.path.realpath(path) != excluded:
                yield Listed(path, path.relative_to(source))
    for error in errors:
        path = Path(error.filename)
        yield Listed(path, path.relative_to(source), f"{path}: folder cannot be read: {error.strerror}")


def plan_jobs(source: Path, output: Path, masks: Path | None) -> list[Job]:
    """List the inputs in name order and check that input and output fit together.

    Args:
        source: an image, or a folder that is searched recursively.
        output: a folder; for one image also an image name.
        masks: a mask folder, which is not searched for inputs.

    Raises:
        UsageError: nothing to do, or the output is a file, lies inside the input, has the suffix of a
            format that is not written, or cannot be looked into.
    """
    with system_errors(UsageError, output, "cannot be read"):
        if source.is_file():
            return [Job(source, Path(source.name), _target(source, output))]
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is a file; the output of a folder must be a folder")
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
            raise UsageError(f"{output}: lies inside the input folder {source}; choose a folder outside it")
    return [Job(i.path, i.relative, output / i.relative, i.error) for i in list_images(source, masks)]


def _target(source: Path, output: Path) -> Path:
    """Return the output file of a single image."""
    suffix = output.suffix.lower()
    if suffix in OTHER_IMAGE_SUFFIXES and not output.is_dir():
        raise UsageError(f"{output}: showface does not write {suffix}; use one of {', '.join(SUFFIXES)}")
    named = suffix in SUFFIXES and not output.is_dir()
    target = output if named else output / source.name
    if target.exists() and target.samefile(source):
        raise UsageError(f"{output}: is the input itself")
    if not named and output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; give a folder or an image name")
    return target
