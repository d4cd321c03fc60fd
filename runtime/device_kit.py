"""The edge kit: one zip with only what a device needs of a bundle."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .backends.tensorrt.library import LIBRARIES
from .backends.tensorrt.sidecar import (
    ENGINES_FOLDER,
    EngineFolder,
    build_command,
    engine_folders,
    read_engine,
    read_sidecar,
)
from .bundle import GOLDEN_FILE, MANIFEST_FILE, Bundle
from .errors import UsageError, system_errors
from .files import atomic_file
from .untrusted.read import MAX_TEXT, read_file

TERMS = ("MODEL_CARD.md", "LICENSE-weights")  # of the weights, where the bundle has them
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal contents make equal files


@dataclass(frozen=True, slots=True)
class Kit:
    """What was packed: names for the user, and the size of the file in bytes."""

    contents: tuple[str, ...]
    size: int


def write_kit(
    bundle: Bundle,
    output: Path,
    backend: str | None = None,
    targets: Sequence[str] = (),
    graphs: bool | None = None,
    overwrite: bool = False,
) -> Kit:
    """Write ``output``; every file that goes in is checked by its hash first.

    Args:
        bundle: the bundle to pack.
        output: zip to write.
        backend: pack the engines of this backend; None packs both.
        targets: pack the engines of these targets; empty packs all.
        graphs: with the ONNX files; None for: only where no engines go along.
        overwrite: replace ``output``.

    Raises:
        UsageError: there are no such engines, a file is missing or broken, or ``output`` exists or is no zip.
    """
    if output.suffix.lower() != ".zip":
        raise UsageError(f"{output}: is written as a zip; give it the suffix .zip")
    if output.exists() and not overwrite:
        raise UsageError(f"{output}: exists already; pass overwrite=True, or choose another name")
    folders = _chosen(bundle, backend, targets)
    entries = {MANIFEST_FILE: _text(bundle.folder / MANIFEST_FILE), GOLDEN_FILE: bundle.read(GOLDEN_FILE)}
    if graphs or (graphs is None and not folders):
        entries |= {f"{stage.name}.onnx": bundle.model(stage) for stage in bundle.manifest.graphs}
    # The terms of the weights travel with them.
    entries |= {name: _text(path) for name in TERMS if (path := bundle.folder / name).is_file()}
    for folder in folders:
        entries |= _engines(folder)
    with system_errors(UsageError, output, "cannot be written"), atomic_file(output) as temporary:
        _write(temporary, entries)
        size = temporary.stat().st_size
    names = [MANIFEST_FILE, GOLDEN_FILE, *(f"engines of {folder.backend} for {folder.target}" for folder in folders)]
    if any(name.endswith(".onnx") for name in entries):
        names.append("graphs")
    return Kit(tuple(names), size)


def _text(path: Path) -> bytes:
    return read_file(path, MAX_TEXT, UsageError)


def _chosen(bundle: Bundle, backend: str | None, targets: Sequence[str]) -> list[EngineFolder]:
    """Return the engine folders to pack; refuse what is not there."""
    if backend is not None and backend not in LIBRARIES:
        raise UsageError(f"{backend} builds no engines; use {' or '.join(LIBRARIES)}", "backend")
    found = [folder for name in LIBRARIES if backend in (None, name) for folder in engine_folders(bundle, name)]
    for target in targets:
        if target not in {folder.target for folder in found}:
            build = build_command(bundle, backend or "tensorrt-rtx", target)
            raise UsageError(f"{bundle.folder}: no engines for {target}; build them with: {build}")
    if backend is not None and not found:
        build = build_command(bundle, backend)
        raise UsageError(f"{bundle.folder}: no engines of {backend}; build them with: {build}")
    return [folder for folder in found if not targets or folder.target in targets]


def _engines(folder: EngineFolder) -> dict[str, bytes]:
    """Return the engines and sidecars of a folder, checked, by their names in the zip."""
    entries = {}
    for stage in folder.bundle.manifest.graphs:
        sidecar = read_sidecar(folder, stage.name)
        if sidecar.onnx_sha256 != folder.bundle.manifest.sha256[f"{stage.name}.onnx"]:
            raise UsageError(f"{folder.engine(stage.name)}: its graph has changed since the build; {folder.rebuild}")
        prefix = f"{ENGINES_FOLDER}/{folder.path.name}/"
        entries[f"{prefix}{stage.name}.engine"] = read_engine(folder, sidecar)
        entries[f"{prefix}{stage.name}.json"] = _text(folder.sidecar(stage.name))
    return entries


def _write(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
