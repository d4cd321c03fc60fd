"""The JSON beside each engine: what it was built from and for, checked before a byte of it is deserialised."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...bundle import MANIFEST_FILE, PACK_GRAPHS, Bundle
from ...errors import UsageError
from ...untrusted.read import MAX_FILE, parse_json, read_file, shown
from .library import version_numbers

ENGINES_FOLDER = "engines"
SIDECAR_SCHEMA = 3  # 3: profiles; 2: user_allocation and platform; engines of before are built again
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # as other systems call them
MAX_SIDECAR = 2**20  # bytes
AMPERE_PLUS = "ampere_plus"  # a target of TensorRT: any GPU from sm_80 on


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What ``<stage>.json`` holds.

    Attributes:
        schema_version: of this file.
        stage: name of the stage.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        tensorrt_version: that built it.
        target: compute capability such as ``sm_86``, or ``ampere_plus``.
        gpu: name of the GPU that it was built on; empty where it was built without one.
        version_compatible: whether newer versions of the same major may run it.
        batches: least, best and greatest batch.
        profiles: 1, or 2 where a single face has one of its own; see :func:`profiles_of`.
        dtypes: of the inputs and outputs, by name.
        precision: of the arithmetic, as in the manifest.
        products: how many convolutions and matrix products compute in which type.
        tf32: whether TensorFloat-32 was allowed.
        optimization_level: of the builder.
        workspace_mib: limit of the builder's scratch memory; None for the library's own.
        user_allocation: whether the engine takes all its memory from the chain, which a CUDA graph presupposes;
            TensorRT-RTX has to be told so, TensorRT's engines do it always.
        platform: operating system and architecture of the builder, such as ``linux-x86_64``.
        onnx_sha256: of the graph.
        engine_sha256: of the engine.
        engine_bytes: size of the engine.
        build_seconds: what the builder took.
    """

    schema_version: int
    stage: str
    backend: str
    tensorrt_version: str
    target: str
    gpu: str
    version_compatible: bool
    batches: tuple[int, int, int]
    profiles: int
    dtypes: dict[str, str]
    precision: str
    products: dict[str, int]
    tf32: bool
    optimization_level: int
    workspace_mib: int | None
    user_allocation: bool
    platform: str
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    build_seconds: float

    @property
    def arithmetic(self) -> str:
        """The precision that the engine rounds in: ``tf32`` where its float32 products may use that."""
        return "tf32" if self.tf32 and self.precision == "float32" else self.precision

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def profiles_of(batches: tuple[int, int, int], count: int) -> tuple[tuple[int, int, int], ...]:
    """Return least, best and greatest batch of each profile of an engine.

    >>> profiles_of((1, 8, 8), 2)
    ((1, 1, 1), (2, 8, 8))
    """
    _, best, greatest = batches
    return (batches,) if count == 1 else ((1, 1, 1), (2, max(2, best), greatest))


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """``engines/<backend>-<target>/`` of a bundle."""

    bundle: Bundle
    backend: str
    target: str

    @property
    def path(self) -> Path:
        """Where the engines are."""
        return self.bundle.folder / ENGINES_FOLDER / f"{self.backend}-{self.target}"

    def engine(self, stage: str) -> Path:
        """Path of a stage's engine."""
        return self.path / f"{stage}.engine"

    def sidecar(self, stage: str) -> Path:
        """Path of a stage's sidecar."""
        return self.path / f"{stage}.json"

    @property
    def rebuild(self) -> str:
        """What makes these engines again."""
        command = build_command(self.bundle, self.backend, self.target)
        if all((self.bundle.folder / f"{stage.name}.onnx").is_file() for stage in self.bundle.manifest.graphs):
            return f"rebuild with: {command}"
        return f"rebuild where the graphs are with: {command}, or pack the bundle again with: {PACK_GRAPHS}"


def build_command(bundle: Bundle, backend: str, target: str | None = None) -> str:
    """Return the command that builds engines, those for ``target``."""
    wanted = {None: "", AMPERE_PLUS: " --hardware-compatible"}.get(target, f" --target {target}")
    return f"showface build {shlex.quote(str(bundle.folder))} --backend {backend}{wanted}"


def engine_folders(bundle: Bundle, backend: str) -> list[EngineFolder]:
    """Return the engine folders of ``backend`` that a bundle has, by name."""
    prefix, folder = f"{backend}-", bundle.folder / ENGINES_FOLDER
    if not folder.is_dir():
        return []
    names = sorted(p.name.removeprefix(prefix) for p in folder.iterdir() if p.is_dir() and p.name.startswith(prefix))
    return [EngineFolder(bundle, backend, name) for name in names if name == AMPERE_PLUS or name.startswith("sm_")]


def read_sidecar(folder: EngineFolder, stage: str) -> Sidecar:
    """Read the sidecar of a stage.

    Raises:
        UsageError: it is missing, or not of this version's form.
    """
    path = folder.sidecar(stage)
    text = read_file(path, MAX_SIDECAR, UsageError, f"no sidecar here, or it cannot be read; {folder.rebuild}")
    try:
        data = parse_json(text)
        fault = _fault(data)
    except ValueError as error:
        fault = str(error)
    if fault is not None:
        raise UsageError(f"{path}: not an engine's sidecar: {fault}; {folder.rebuild}")
    return Sidecar(**{**data, "batches": tuple(data["batches"])})


def _fault(data: Any) -> str | None:
    """Return the first thing that is wrong with the parsed file; None for a good one."""
    if not isinstance(data, dict):
        return "it is no JSON object"
    if data.get("schema_version") != SIDECAR_SCHEMA:
        return f"its 'schema_version' is {shown(data.get('schema_version'))}, not {SIDECAR_SCHEMA}"
    kinds: dict[str, Any] = {"int": int, "str": str, "bool": bool, "float": (int, float)}
    kinds["int | None"] = (int, type(None))
    for field in fields(Sidecar):
        if field.name not in data:
            return f"{field.name!r} is missing"
        kind = kinds.get(str(field.type), dict if str(field.type).startswith("dict") else list)
        if not isinstance(data[field.name], kind):
            return f"{field.name!r} is {shown(data[field.name])}"
    unknown = sorted(set(data) - {field.name for field in fields(Sidecar)})
    if unknown:
        return f"{shown(unknown[0])} is unknown"
    batches = data["batches"]
    if len(batches) != 3 or any(type(b) is not int for b in batches) or not 1 <= batches[0] <= batches[1] <= batches[2]:
        return f"'batches' is {shown(batches)}"
    if data["profiles"] not in (1, 2) or (data["profiles"] == 2 and (batches[0] != 1 or batches[2] < 2)):
        return f"'profiles' is {shown(data['profiles'])} for the batches {shown(batches)}"
    return None


def check_sidecar(folder: EngineFolder, sidecar: Sidecar, stage: str, version: str, device: str) -> None:
    """Check that an engine was built from this bundle, and for this device (``sm_86`` …) and library.

    Raises:
        UsageError: it was not; what differs is said.
    """
    path, mend = folder.engine(stage), folder.rebuild
    named = (sidecar.stage, sidecar.backend, sidecar.target)
    if named != (stage, folder.backend, folder.target):
        raise UsageError(f"{path}: its sidecar speaks of {' '.join(named)}; {mend}")
    if not version_matches(sidecar, version):
        raise UsageError(f"{path}: built by {sidecar.backend} {sidecar.tensorrt_version}, here is {version}; {mend}")
    if not runs_on(sidecar.target, device):
        other = EngineFolder(folder.bundle, folder.backend, device)
        raise UsageError(f"{path}: built for {sidecar.target}, this GPU is {device}; {other.rebuild}")
    if sidecar.backend == "tensorrt" and sidecar.platform != platform_here():  # TensorRT-RTX's run on any
        raise UsageError(f"{path}: built on {sidecar.platform}, this machine is {platform_here()}; {mend}")
    if sidecar.onnx_sha256 != folder.bundle.manifest.sha256[f"{stage}.onnx"]:
        raise UsageError(f"{path}: {stage}.onnx of {MANIFEST_FILE} has changed since the build; {mend}")
    if sidecar.precision != folder.bundle.manifest.precision[stage]:
        raise UsageError(f"{path}: computes in {sidecar.precision}, the manifest says otherwise; {mend}")


def read_engine(folder: EngineFolder, sidecar: Sidecar) -> bytes:
    """Return the bytes of an engine whose sidecar has been checked.

    Raises:
        UsageError: the file is missing, or was changed or cut off.
    """
    path = folder.engine(sidecar.stage)
    data = read_file(path, MAX_FILE, UsageError, f"cannot be read; {folder.rebuild}")
    if hashlib.sha256(data).hexdigest() != sidecar.engine_sha256:
        raise UsageError(f"{path}: its hash differs from its sidecar's; {folder.rebuild}")
    return data


def platform_here() -> str:
    """Return the operating system and architecture of this machine, such as ``linux-x86_64`` or ``linux-aarch64``."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{ARCHITECTURES.get(machine, machine)}"


def version_matches(sidecar: Sidecar, version: str) -> bool:
    """Return whether ``version`` of the library may run an engine."""
    if not sidecar.version_compatible:
        return sidecar.tensorrt_version == version
    built, here = version_numbers(sidecar.tensorrt_version), version_numbers(version)
    return built[:1] == here[:1] and here >= built


def fits_model(sidecar: Sidecar, gpu: str) -> bool:
    """Return whether an engine may run on a GPU of this name: TensorRT tunes one for the model that it is built on."""
    tuned = sidecar.backend == "tensorrt" and sidecar.target != AMPERE_PLUS
    return not tuned or sidecar.gpu == gpu


def runs_on(target: str, device: str) -> bool:
    """Return whether an engine for ``target`` runs on a GPU of compute capability ``device``."""
    if target == AMPERE_PLUS:
        return int(device.removeprefix("sm_")) >= 80
    return target == device
