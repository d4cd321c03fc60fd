"""Build the engines of a bundle for one target: only what has changed, one process each, files replaced whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
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
from showface.runtime.bundle import Bundle, as_exported
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.files import write_file
from showface.runtime.stages import TENSORS, Stage

from .process import BuildOutcome, Progress, run_request
from .refusals import explain
from .request import BuildOptions, build_facts, engine_request, is_current


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one engine.

    Attributes:
        stage: its name.
        target: of the build.
        status: an engine that is current was there before.
        engine_bytes: 0 where it failed.
        seconds: what the builder took.
        error: why it failed, and what to do; empty where it did not.
        argument: option of a build by which it is mended; empty where there is none.
        refused: nodes that cannot be built; the error names the first.
    """

    stage: str
    target: str
    status: Literal["built", "current", "failed"]
    engine_bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    argument: str = ""
    refused: int = 0


def build_engines(
    bundle: Bundle, options: BuildOptions, version: str, gpu: str, progress: Progress | None = None
) -> list[Built]:
    """Build every stage for one target; the engines of stages that fail stay as they were.

    Args:
        bundle: whose stages are built.
        options: what all engines of the folder share.
        version: of the library that builds.
        gpu: name of the GPU that it builds on; empty for none.
        progress: is told of the builder's phases, where somebody looks on.

    Raises:
        UsageError: the options contradict each other, the bundle is a CPU form, or the folder cannot be
            written.
    """
    options.check()
    as_exported(bundle, "engines are built from")
    folder = EngineFolder(bundle, options.backend, options.target)
    with system_errors(UsageError, folder.path, "the folder of the engines cannot be made"):
        folder.path.mkdir(parents=True, exist_ok=True)
    rows = []
    for stage in bundle.manifest.graphs:
        current = _current(folder, stage, options, version)
        if current is not None and fits_model(current, gpu):
            rows.append(Built(stage.name, options.target, "current", current.engine_bytes, current.build_seconds))
        else:
            rows.append(_build(folder, stage, options, version, gpu, progress))
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
    folder: EngineFolder, stage: Stage, options: BuildOptions, version: str, gpu: str, progress: Progress | None
) -> Built:
    temporary = folder.path / f".{stage.name}.{os.getpid()}.tmp"
    request = engine_request(folder.bundle, stage, options, temporary)
    try:
        outcome = run_request(request, progress)
        if not outcome.good:
            error = explain(stage.name, folder.bundle.model(stage), outcome)
            return Built(stage.name, options.target, "failed", 0, 0.0, error, outcome.argument, len(outcome.refusals))
        facts = build_facts(folder.bundle, stage.name, options, version)
        with system_errors(ShowfaceError, temporary, "the engine cannot be written"):
            sidecar = _sidecar(stage, {**facts, "gpu": gpu}, outcome, temporary.read_bytes())
            _replace(temporary, folder.engine(stage.name))
            write_file(folder.sidecar(stage.name), sidecar.to_json().encode())
    finally:
        temporary.unlink(missing_ok=True)
    return Built(stage.name, options.target, "built", sidecar.engine_bytes, sidecar.build_seconds)


def _sidecar(stage: Stage, known: Mapping[str, Any], outcome: BuildOutcome, engine: bytes) -> Sidecar:
    """Return the sidecar of a new engine, whose inputs and outputs are compared with the stage table.

    Raises:
        ShowfaceError: a type is not that of the stage table.
    """
    wanted = {name: TENSORS[name].dtype for name in (*stage.inputs, *stage.outputs)}
    if outcome.facts["dtypes"] != wanted:
        raise ShowfaceError(
            f"stage {stage.name}: the engine's inputs and outputs are {outcome.facts['dtypes']}, not {wanted} as in "
            "the stage table; export the bundle again"
        )
    return Sidecar(
        schema_version=SIDECAR_SCHEMA,
        stage=stage.name,
        **known,
        **{name: outcome.facts[name] for name in ("dtypes", "products", "build_seconds")},
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        engine_bytes=len(engine),
    )


def _replace(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
