"""Build the engines of a bundle for one target: only what has changed, one process each, files replaced whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from showface.runtime.backends.tensorrt.sidecar import (
    SIDECAR_SCHEMA,
    EngineFolder,
    Sidecar,
    fits_model,
    read_engine,
    read_sidecar,
)
from showface.runtime.bundle import Bundle
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.files import write_file
from showface.runtime.stages import TENSORS, Stage

from .process import WORKER, BuildOutcome, Progress, run_request
from .refusals import explain
from .request import BuildOptions, engine_request, is_current


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one engine; ``error`` is empty unless it failed."""

    stage: str
    target: str
    status: Literal["built", "current", "failed"]
    engine_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


def build_engines(
    bundle: Bundle,
    options: BuildOptions,
    version: str,
    gpu: str,
    progress: Progress | None = None,
    command: Sequence[str] = WORKER,
) -> list[Built]:
    """Build every stage for one target; the engines of stages that fail stay as they were.

    Args:
        bundle: whose stages are built.
        options: of the build.
        version: of the library that builds.
        gpu: name of the GPU that it builds on; empty for none.
        progress: is told of the builder's phases, where somebody looks on.
        command: of the builder's process.

    Raises:
        UsageError: the options contradict each other, or the folder cannot be written.
    """
    options.check()
    folder = EngineFolder(bundle, options.backend, options.target)
    with system_errors(UsageError, folder.path, "the folder of the engines cannot be made"):
        folder.path.mkdir(parents=True, exist_ok=True)
    rows = []
    for stage in bundle.manifest.graphs:
        current = _current(folder, stage, options, version)
        if current is not None and fits_model(current, gpu):
            rows.append(Built(stage.name, options.target, "current", current.engine_bytes, current.build_seconds))
        else:
            rows.append(_build(folder, stage, options, version, gpu, progress, command))
    return rows


def _current(folder: EngineFolder, stage: Stage, options: BuildOptions, version: str) -> Sidecar | None:
    """Return the sidecar of an engine that need not be built again."""
    try:
        sidecar = read_sidecar(folder, stage.name)
        if sidecar.stage != stage.name or not is_current(sidecar, folder.bundle, options, version):
            return None
        read_engine(folder, sidecar)
    except UsageError:
        return None  # missing or broken: it is built again
    return sidecar


def _build(
    folder: EngineFolder,
    stage: Stage,
    options: BuildOptions,
    version: str,
    gpu: str,
    progress: Progress | None,
    command: Sequence[str],
) -> Built:
    temporary = folder.path / f".{stage.name}.{os.getpid()}.tmp"
    request = engine_request(folder.bundle, stage, options, temporary)
    try:
        outcome = run_request(request, progress, command)
        if not outcome.good:
            error = explain(stage.name, folder.bundle.model(stage), outcome)
            return Built(stage.name, options.target, "failed", error=error)
        with system_errors(ShowfaceError, temporary, "the engine cannot be written"):
            sidecar = _sidecar(folder, stage, options, version, gpu, outcome, temporary)
            _replace(temporary, folder.engine(stage.name))
            write_file(folder.sidecar(stage.name), sidecar.to_json().encode())
    finally:
        temporary.unlink(missing_ok=True)
    return Built(stage.name, options.target, "built", sidecar.engine_bytes, sidecar.build_seconds)


def _sidecar(
    folder: EngineFolder,
    stage: Stage,
    options: BuildOptions,
    version: str,
    gpu: str,
    outcome: BuildOutcome,
    engine: Path,
) -> Sidecar:
    """Return the sidecar of a new engine, whose inputs and outputs are compared with the stage table.

    Raises:
        ShowfaceError: a type is not that of the stage table.
    """
    facts: dict[str, Any] = outcome.facts
    wanted = {name: TENSORS[name].dtype for name in (*stage.inputs, *stage.outputs)}
    if facts["dtypes"] != wanted:
        raise ShowfaceError(
            f"stage {stage.name}: the engine's inputs and outputs are {facts['dtypes']}, not {wanted} as in the stage "
            "table; export the bundle again"
        )
    data = engine.read_bytes()
    manifest = folder.bundle.manifest
    return Sidecar(
        schema_version=SIDECAR_SCHEMA,
        stage=stage.name,
        backend=options.backend,
        tensorrt_version=version,
        target=options.target,
        gpu=gpu,
        version_compatible=options.version_compatible,
        batches=options.batches,
        profiles=options.profiles,
        dtypes=facts["dtypes"],
        precision=manifest.precision[stage.name],
        products=facts["products"],
        tf32=options.tf32,
        optimization_level=options.optimization_level,
        workspace_mib=options.workspace_mib,
        user_allocation=True,
        platform=facts["platform"],
        onnx_sha256=manifest.sha256[f"{stage.name}.onnx"],
        engine_sha256=hashlib.sha256(data).hexdigest(),
        engine_bytes=len(data),
        build_seconds=facts["build_seconds"],
    )


def _replace(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
