"""The bundle: a folder with all that a device needs, checked by hash before anything is parsed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .stages import CATEGORIES, OCCLUDER, SEMANTIC_MARGIN, TENSORS, VARIANTS, Stage, graphs_of, mismatch
from .untrusted.onnx_file import refers_to_files
from .untrusted.read import MAX_FILE, MAX_TEXT, Headers, parse_arrays, parse_json, read_file, shown

SCHEMA_VERSION = 1
LARGEST = {"image_size": 4096, "code_channels": 4096, "opset": 100}
PRECISIONS = ("float32", "float16", "int8")
CPU_FORM = "cpu"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
PACK_GRAPHS = "showface pack BUNDLE KIT --graphs"  # the command that packs graphs too


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
        form: ``cpu`` where the graphs were rewritten for a CPU; None where they are as exported.
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
    form: str | None = None

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
        for name in ("calibration", "network", "occluder", "form"):
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
        data = read_file(path, MAX_FILE, UsageError, "cannot be read, export the bundle again")
        if hashlib.sha256(data).hexdigest() != self.manifest.sha256.get(name):
            raise UsageError(f"{path}: its hash differs from {MANIFEST_FILE}; copy or export the bundle again")
        return data

    def size(self, name: str) -> int:
        """Return the bytes of the file ``name``; 0 where it is missing."""
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return 0

    def model(self, stage: Stage) -> bytes:
        """Return the checked ONNX bytes of ``stage``.

        Raises:
            UsageError: the file is missing or broken, or refers to others; a kit of engines has none.
        """
        name = f"{stage.name}.onnx"
        engines = self.folder / "engines"
        if engines.is_dir() and not (self.folder / name).exists():
            kinds = ", ".join(sorted(path.name for path in engines.iterdir() if path.is_dir())) or "none"
            raise UsageError(
                f"{self.folder}: is a kit: engines ({kinds}) for a GPU of their target and no graphs, which other "
                "devices and ONNX Runtime need; use it on such a GPU, or pack the bundle again with: " + PACK_GRAPHS
            )
        data = self.read(name)
        try:
            fault = "its weights lie in another file, which no hash covers" if refers_to_files(data) else None
        except ValueError as error:
            fault = f"no ONNX graph: {error}"
        if fault is not None:
            raise UsageError(f"{self.folder / name}: {fault}; export the bundle again")
        return data

    def golden(self) -> dict[str, NDArray[Any]]:
        """Return the golden tensors by name: real inputs and PyTorch's output of every stage.

        ``semantic_margin`` [N, H, W] is the parser's lead of the best label over the second best.

        Raises:
            UsageError: the file is missing, or its tensors are not those of the bundle's stages.
        """
        manifest = self.manifest
        names = {name for stage in manifest.stages for name in (*stage.inputs, *stage.outputs)}
        sizes = {"H": manifest.image_size, "c": manifest.code_channels}

        def fault(headers: Headers) -> str | None:
            missing = sorted(names - set(headers))
            return f"it lacks {missing[0]}" if missing else tensor_fault(headers, sizes)

        try:
            tensors = parse_arrays(self.read(GOLDEN_FILE), fault)
            check_inputs(tensors)
            for name, values in tensors.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(f"{name} holds values that are not finite")
        except ValueError as error:
            path = self.folder / GOLDEN_FILE
            raise UsageError(f"{path}: not the tensors of this bundle: {error}; export the bundle again") from error
        return tensors


def check_inputs(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Refuse inputs of the networks that no face and hole give.

    Raises:
        ValueError: ``image`` leaves [-1, 1], or ``mask`` is neither 0 nor 1.
    """
    if not (np.abs(tensors["image"]) <= 1).all():
        raise ValueError("image holds values outside [-1, 1]")
    if not np.isin(tensors["mask"], (0, 1)).all():
        raise ValueError("mask holds values other than 0 and 1")


def tensor_fault(headers: Headers, sizes: Mapping[str, int]) -> str | None:
    """Return what is wrong with the tensors in a file, compared with the stage table; None for good ones.

    Args:
        headers: dtype and shape by name; the parser's margin may be among them.
        sizes: of the table's symbols that are known.
    """
    for name, (_, shape) in headers.items():
        if name not in TENSORS and name != SEMANTIC_MARGIN:
            return f"{shown(name)} is no tensor of any stage"
        if not shape or shape[0] < 1:
            return f"{name} holds no face"
    batch = next(shape[0] for _, shape in headers.values()) if headers else 0
    known = {**sizes, "B": batch}
    if SEMANTIC_MARGIN in headers:
        known["H"] = sizes.get("H", headers[SEMANTIC_MARGIN][1][-1])
        if headers[SEMANTIC_MARGIN] != ("float32", (batch, known["H"], known["H"])):
            return f"{SEMANTIC_MARGIN} is {headers[SEMANTIC_MARGIN][0]} {headers[SEMANTIC_MARGIN][1]}"
    return mismatch({name: header for name, header in headers.items() if name != SEMANTIC_MARGIN}, known)


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


def as_exported(bundle: Bundle, wanted: str) -> Bundle:
    """Return a bundle, unless its graphs were rewritten for a CPU.

    Args:
        bundle: to be looked at.
        wanted: what a bundle as exported is needed for, up to its name: "engines are built from".

    Raises:
        UsageError: they were.
    """
    if bundle.manifest.form == CPU_FORM:
        raise UsageError(
            f"{bundle.folder}: is a CPU form; {wanted} the bundle that it came from, of the same "
            f"checkpoint {bundle.manifest.checkpoint_sha256[:16]}"
        )
    return bundle


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
        return f"{shown(name)} is unknown"
    for name in ("image_size", "code_channels", "opset"):
        if type(manifest[name]) is not int or not 1 <= manifest[name] <= LARGEST[name]:
            return f"{name!r} must be a whole number from 1 to {LARGEST[name]}, not {shown(manifest[name])}"
    for name in ("variant", "weights_dtype", "checkpoint_sha256"):
        if not isinstance(manifest[name], str):
            return f"{name!r} must be a text, not {shown(manifest[name])}"
    for name in ("precision", "sha256", "versions"):
        value = manifest[name]
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            return f"{name!r} must be an object of texts, not {shown(value)}"
    for name in ("calibration", "network"):
        if not isinstance(manifest.get(name), dict | None):
            return f"{name!r} must be an object, not {shown(manifest[name])}"
    occluder = manifest.get("occluder")
    if occluder is not None and (not isinstance(occluder, dict) or set(occluder) != {"checkpoint_sha256"}):
        return f"'occluder' must be an object with 'checkpoint_sha256', not {shown(occluder)}"
    if manifest.get("form") not in (None, CPU_FORM):
        return f"'form' must be {CPU_FORM!r}, not {shown(manifest['form'])}"
    if not isinstance(manifest["categories"], list):
        return f"'categories' must be a list, not {shown(manifest['categories'])}"
    if manifest["variant"] not in VARIANTS:
        return f"'variant' {shown(manifest['variant'])} is unknown; known: {', '.join(VARIANTS)}"
    optional: tuple[str, ...] = () if occluder is None else (OCCLUDER.name,)
    stages = {stage.name for stage in graphs_of(manifest["variant"], optional)}
    if set(manifest["precision"]) != stages:
        return (
            f"'precision' does not name the stages of variant {shown(manifest['variant'])}: {', '.join(sorted(stages))}"
        )
    unknown = sorted(set(manifest["precision"].values()) - set(PRECISIONS))
    if unknown:
        return f"'precision' {shown(unknown[0])} is unknown; known: {', '.join(PRECISIONS)}"
    graphs = {name for name in manifest["sha256"] if name.endswith(".onnx")}
    if graphs != {f"{stage}.onnx" for stage in stages}:
        return f"'sha256' does not list the graphs of variant {shown(manifest['variant'])}: {', '.join(sorted(stages))}"
    return None


def open_bundle(folder: str | Path | None = None) -> Bundle:
    """Open the bundle in ``folder``, or the default bundle.

    Raises:
        UsageError: there is no bundle, or its manifest is broken, newer than this version, or of
            another category scheme; the message names ``manifest.json`` and the key.
    """
    folder = default_bundle() if folder is None else Path(folder)
    path = folder / MANIFEST_FILE
    text = read_file(path, MAX_TEXT, UsageError, "no bundle here, or it cannot be read")
    try:
        data = parse_json(text)
        version = data["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a bundle manifest: {error}; export the bundle again") from error
    if type(version) is not int or version < 1:
        found = f"'schema_version' is {shown(version)}"
        raise UsageError(f"{path}: not a bundle manifest: {found}; export the bundle again")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: bundle schema {shown(version)} is newer than {SCHEMA_VERSION}; "
            "upgrade with: pip install -U showface"
        )
    fault = _fault(data)
    if fault is not None:
        raise UsageError(f"{path}: not a bundle manifest: {fault}; export the bundle again")
    data.pop("stages", None)
    manifest = Manifest(**{**data, "categories": tuple(data["categories"])})
    if manifest.categories != CATEGORIES:
        raise UsageError(f"{path}: its categories differ from this version's; export the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())
