"""The bundle: a folder with all that a device needs, checked by hash before anything is parsed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError, system_errors
from .stages import CATEGORIES, OCCLUDER, VARIANTS, Stage, graphs_of

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes:
        schema_version: version of this layout.
        variant: key of ``VARIANTS``; decides the stages.
        image_size: side of the networks' input.
        code_channels: length of a memory code.
        categories: names of the parser's labels.
        precision: compute precision of each stage's arithmetic, ``float32``, ``float16`` or ``int8``.
        weights_dtype: type in which the weights are stored.
        opset: ONNX opset of the graphs.
        sha256: digest of each file, by file name.
        checkpoint_sha256: digest of the weights that were exported.
        versions: versions of the packages that wrote the bundle.
        calibration: how the stages in ``int8`` were calibrated and judged; None for a float bundle.
        network: config of the networks, to rebuild them in PyTorch; None in a bundle of an older version.
        occluder: where the occluder's weights come from (``checkpoint_sha256``); None for a bundle without one.
    """

    schema_version: int
    variant: str
    image_size: int
    code_channels: int
    categories: tuple[str, ...]
    precision: dict[str, str]
    weights_dtype: str
    opset: int
    sha256: dict[str, str]
    checkpoint_sha256: str
    versions: dict[str, str]
    calibration: dict[str, Any] | None = None
    network: dict[str, Any] | None = None
    occluder: dict[str, str] | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this bundle's variant, in order: the chain."""
        return VARIANTS[self.variant]

    @property
    def graphs(self) -> tuple[Stage, ...]:
        """The stages of the chain, and the occluder where the bundle has one: what has a graph and engines."""
        return graphs_of(self.variant, self.precision)

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; it repeats the stage table for other readers."""
        table = [asdict(stage) for stage in self.stages]
        document = {**asdict(self), "stages": table}
        for name in ("calibration", "network", "occluder"):
            if document[name] is None:
                del document[name]  # so that older versions read the bundle
        return json.dumps(document, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle; files are read, and checked, when asked for."""

    folder: Path
    manifest: Manifest
    digest: str  # of the manifest, hence of every file

    def read(self, name: str) -> bytes:
        """Return the bytes of the file ``name``.

        Raises:
            UsageError: the file is missing or its hash differs from the manifest's.
        """
        path = self.folder / name
        with system_errors(UsageError, path, "cannot be read, export the bundle again"):
            data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.sha256.get(name):
            raise UsageError(f"{path}: its hash differs from {MANIFEST_FILE}; copy or export the bundle again")
        return data

    def model(self, stage: Stage) -> bytes:
        """Return the checked ONNX bytes of ``stage``.

        Raises:
            UsageError: the file is missing or broken; a kit of engines has none.
        """
        name = f"{stage.name}.onnx"
        engines = self.folder / "engines"
        if engines.is_dir() and not (self.folder / name).exists():
            kinds = ", ".join(sorted(path.name for path in engines.iterdir() if path.is_dir())) or "none"
            raise UsageError(
                f"{self.folder}: is a kit: engines ({kinds}) for a GPU of their target and no graphs, which other "
                "devices and ONNX Runtime need; use it on such a GPU, or pack the bundle again with --graphs"
            )
        return self.read(name)

    def golden(self) -> dict[str, NDArray[Any]]:
        """Return the golden tensors by name: real inputs and PyTorch's output of every stage.

        ``semantic_margin`` [N, H, W] is the parser's lead of the best label over the second best.
        """
        with np.load(io.BytesIO(self.read(GOLDEN_FILE)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write the files of a bundle and its manifest, which gets their digests, into a folder; return it opened.

    Args:
        folder: that exists; :func:`showface.runtime.files.atomic_folder` gives one that appears when all is proved.
        manifest: its ``sha256`` is filled in here.
        files: what the bundle holds, by file name.
    """
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST_FILE).write_text(replace(manifest, sha256=digests).to_json(), encoding="utf-8")
    return open_bundle(folder)


def check_new(folder: Path) -> None:
    """Refuse a folder that is to be created and exists.

    Raises:
        UsageError: it does.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder}: exists already; remove it or choose another folder")


def default_bundle() -> Path:
    """Return the folder of the bundle that ships with the package."""
    return Path(str(files("showface.runtime"))) / "default_bundle"


def _fault(manifest: Any) -> str | None:
    """Return the first key of the parsed ``manifest.json`` that is wrong, and how; None for a good one."""
    if not isinstance(manifest, dict):
        return "it is no JSON object"
    names = [field.name for field in fields(Manifest)]
    for name in (field.name for field in fields(Manifest) if field.default is MISSING):
        if name not in manifest:
            return f"{name!r} is missing"
    for name in sorted(set(manifest) - {*names, "stages"}):
        return f"{name!r} is unknown"
    for name in ("image_size", "code_channels", "opset"):
        if type(manifest[name]) is not int or manifest[name] < 1:
            return f"{name!r} must be a whole number ≥ 1, not {manifest[name]!r}"
    for name in ("variant", "weights_dtype", "checkpoint_sha256"):
        if not isinstance(manifest[name], str):
            return f"{name!r} must be a text, not {manifest[name]!r}"
    for name in ("precision", "sha256", "versions"):
        value = manifest[name]
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            return f"{name!r} must be an object of texts, not {value!r}"
    for name in ("calibration", "network"):
        if not isinstance(manifest.get(name), dict | None):
            return f"{name!r} must be an object, not {manifest[name]!r}"
    occluder = manifest.get("occluder")
    if occluder is not None and (not isinstance(occluder, dict) or set(occluder) != {"checkpoint_sha256"}):
        return f"'occluder' must be an object with 'checkpoint_sha256', not {occluder!r}"
    if not isinstance(manifest["categories"], list):
        return f"'categories' must be a list, not {manifest['categories']!r}"
    if manifest["variant"] not in VARIANTS:
        return f"'variant' {manifest['variant']!r} is unknown; known: {', '.join(VARIANTS)}"
    optional: tuple[str, ...] = () if occluder is None else (OCCLUDER.name,)
    stages = {stage.name for stage in graphs_of(manifest["variant"], optional)}
    if set(manifest["precision"]) != stages:
        return f"'precision' does not name the stages of variant {manifest['variant']!r}: {', '.join(sorted(stages))}"
    graphs = {name for name in manifest["sha256"] if name.endswith(".onnx")}
    if graphs != {f"{stage}.onnx" for stage in stages}:
        return f"'sha256' does not list the graphs of variant {manifest['variant']!r}: {', '.join(sorted(stages))}"
    return None


def open_bundle(folder: str | Path | None = None) -> Bundle:
    """Open the bundle in ``folder``, or the default bundle.

    Raises:
        UsageError: there is no bundle, or its manifest is broken, newer than this version, or of
            another category scheme; the message names ``manifest.json`` and the key.
    """
    folder = default_bundle() if folder is None else Path(folder)
    path = folder / MANIFEST_FILE
    with system_errors(UsageError, path, "no bundle here, or it cannot be read"):
        text = path.read_bytes()
    try:
        data = json.loads(text)
        version = data["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not a bundle manifest: {error}; export the bundle again") from error
    if type(version) is not int or version < 1:
        raise UsageError(f"{path}: not a bundle manifest: 'schema_version' is {version!r}; export the bundle again")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: bundle schema {version} is newer than {SCHEMA_VERSION}; upgrade with: pip install -U showface"
        )
    fault = _fault(data)
    if fault is not None:
        raise UsageError(f"{path}: not a bundle manifest: {fault}; export the bundle again")
    data.pop("stages", None)
    manifest = Manifest(**{**data, "categories": tuple(data["categories"])})
    if manifest.categories != CATEGORIES:
        raise UsageError(f"{path}: its categories differ from this version's; export the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())
