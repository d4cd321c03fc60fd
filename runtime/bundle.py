"""The bundle: a folder with all that a device needs, checked by hash before anything is parsed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .stages import CATEGORIES, VARIANTS, Stage

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes:
        schema_version: of this layout.
        variant: key of ``VARIANTS``; decides the stages.
        image_size: side of the networks' input.
        code_channels: length of a memory code.
        categories: names of the parser's labels.
        precision: of each stage's arithmetic, ``float32`` or ``float16``.
        weights_dtype: in which the weights are stored.
        opset: of the ONNX files.
        sha256: digest of each file, by file name.
        checkpoint_sha256: digest of the weights that were exported.
        versions: of the packages that wrote the bundle.
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

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this bundle's variant, in order."""
        return VARIANTS[self.variant]

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; it repeats the stage table for other readers."""
        table = [asdict(stage) for stage in self.stages]
        return json.dumps({**asdict(self), "stages": table}, indent=2) + "\n"


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
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}; export the bundle again") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.sha256.get(name):
            raise UsageError(f"{path}: its hash differs from {MANIFEST_FILE}; copy or export the bundle again")
        return data

    def model(self, stage: Stage) -> bytes:
        """Return the checked ONNX bytes of ``stage``."""
        return self.read(f"{stage.name}.onnx")

    def golden(self) -> dict[str, NDArray[Any]]:
        """Return the golden tensors by name: real inputs and PyTorch's output of every stage.

        ``semantic_margin`` [N, H, W] is the parser's lead of the best label over the second best.
        """
        self.read(GOLDEN_FILE)
        with np.load(self.folder / GOLDEN_FILE, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def default_bundle() -> Path:
    """Return the folder of the bundle that ships with the package."""
    return Path(str(files("showface.runtime"))) / "default_bundle"


def open_bundle(folder: Path | None = None) -> Bundle:
    """Open the bundle in ``folder``, or the default bundle.

    Raises:
        UsageError: there is no bundle, or its manifest is broken, newer than this version, or of
            another category scheme.
    """
    folder = default_bundle() if folder is None else folder
    path = folder / MANIFEST_FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{folder}: no bundle here ({MANIFEST_FILE} cannot be read: {error.strerror})") from error
    try:
        data: dict[str, Any] = json.loads(text)
        version = int(data["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a bundle manifest: {error}") from error
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: bundle schema {version} is newer than {SCHEMA_VERSION}; upgrade with: pip install -U showface"
        )
    data.pop("stages", None)
    try:
        manifest = Manifest(**{**data, "categories": tuple(data["categories"])})
    except (TypeError, KeyError) as error:
        raise UsageError(f"{path}: not a bundle manifest: {error}") from error
    if not isinstance(manifest.variant, str) or not isinstance(manifest.sha256, dict):
        raise UsageError(f"{path}: not a bundle manifest: variant or sha256 is of the wrong type")
    if manifest.variant not in VARIANTS:
        raise UsageError(f"{path}: unknown variant {manifest.variant!r}; known: {', '.join(VARIANTS)}")
    if manifest.categories != CATEGORIES:
        raise UsageError(f"{path}: its categories differ from this version's; export the bundle again")
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())
