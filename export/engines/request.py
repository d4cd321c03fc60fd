"""What one engine is to be built from and for; it travels to the builder's process as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showface.runtime.backends.tensorrt.sidecar import AMPERE_PLUS, ENGINES_FOLDER, Sidecar, platform_here
from showface.runtime.bundle import Bundle, as_exported
from showface.runtime.errors import UsageError
from showface.runtime.stages import Stage

MAX_LEVEL = 5  # of the builder's optimisation


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What all engines of one folder share.

    Attributes:
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        target: compute capability such as ``sm_86``, or ``ampere_plus``.
        batches: least, best and greatest batch.
        tf32: let float32 products use TensorFloat-32.
        optimization_level: of the builder, 0 to 5.
        workspace_mib: limit of the builder's scratch memory on the device.
        version_compatible: let newer versions of the same major run the engine.
        timing_cache: file of tactics that were timed before; TensorRT only.
        host_memory_mib: limit of the builder's process; beyond it the build of that stage fails.
        device: index of the GPU that TensorRT builds on.
        profiles: 1, or 2 to tune kernels for a single face apart from those for more.
    """

    backend: str
    target: str
    batches: tuple[int, int, int] = (1, 8, 8)
    tf32: bool = False
    optimization_level: int = 3
    workspace_mib: int | None = None
    version_compatible: bool = False
    timing_cache: str | None = None
    host_memory_mib: int | None = None
    device: int = 0
    profiles: int = 1

    def check(self) -> None:
        """Refuse what no engine can be built for.

        Raises:
            UsageError: the batches are not in order, or an option is not one of this backend.
        """
        least, best, greatest = self.batches
        if not 1 <= least <= best <= greatest:
            raise UsageError(f"batches {least}, {best}, {greatest}: need 1 ≤ least ≤ best ≤ greatest", "max_batch")
        if self.profiles not in (1, 2) or (self.profiles == 2 and (least > 1 or greatest < 2)):
            raise UsageError(
                f"{self.profiles} profiles: use 1, or 2 with a least batch of 1 and a greatest of 2 or more, one for a "
                "single face and one for batches",
                "profiles",
            )
        if not 0 <= self.optimization_level <= MAX_LEVEL:
            text = f"optimization level {self.optimization_level}: use 0 to {MAX_LEVEL}"
            raise UsageError(text, "optimization_level")
        if self.backend == "tensorrt-rtx" and (self.target == AMPERE_PLUS or self.version_compatible):
            kind = "hardware_compatible" if self.target == AMPERE_PLUS else "version_compatible"
            raise UsageError("only tensorrt builds such engines: TensorRT-RTX compiles its kernels on the device", kind)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One engine: a stage for one target.

    Attributes:
        stage: its name.
        onnx: path of the graph.
        onnx_sha256: digest that the graph must have.
        engine: path to write.
        precision: that the manifest promises.
        check_only: parse, and build nothing.
        options: of the build.
    """

    stage: str
    onnx: str
    onnx_sha256: str
    engine: str
    precision: str
    check_only: bool
    options: BuildOptions

    def to_json(self) -> str:
        """Return the request as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EngineRequest:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        options = {**data["options"], "batches": tuple(data["options"]["batches"])}
        return cls(**{**data, "options": BuildOptions(**options)})


def engine_request(
    bundle: Bundle, stage: Stage, options: BuildOptions, engine: Path, check_only: bool = False
) -> EngineRequest:
    """Return the request for a stage of a bundle, whose graph's hash is checked first."""
    as_exported(bundle, "engines are built from")
    bundle.model(stage)
    name = f"{stage.name}.onnx"
    manifest = bundle.manifest
    return EngineRequest(
        stage.name,
        str(bundle.folder / name),
        manifest.sha256[name],
        str(engine),
        manifest.precision[stage.name],
        check_only,
        options,
    )


def timing_cache_of(bundle: Bundle, version: str, gpu: str) -> str:
    """Return the file beside the engines where TensorRT ``version`` keeps what it has timed on ``gpu``."""
    name = f"{version}-{re.sub(r'[^A-Za-z0-9]+', '_', gpu)}"
    return str(bundle.folder / ENGINES_FOLDER / f"timing-{name}.cache")


def build_facts(bundle: Bundle, stage: str, options: BuildOptions, version: str) -> dict[str, Any]:
    """Return what the sidecar of an engine says that is known before it is built."""
    return {
        "backend": options.backend,
        "tensorrt_version": version,
        "target": options.target,
        "version_compatible": options.version_compatible,
        "batches": options.batches,
        "profiles": options.profiles,
        "precision": bundle.manifest.precision[stage],
        "tf32": options.tf32,
        "optimization_level": options.optimization_level,
        "workspace_mib": options.workspace_mib,
        "user_allocation": True,
        "platform": platform_here(),
        "onnx_sha256": bundle.manifest.sha256[f"{stage}.onnx"],
    }


def is_current(sidecar: Sidecar, bundle: Bundle, options: BuildOptions, version: str) -> bool:
    """Return whether an engine with this sidecar is what a build by ``version`` with ``options`` would make."""
    wanted = build_facts(bundle, sidecar.stage, options, version)
    if options.backend != "tensorrt":
        del wanted["platform"]  # engines of TensorRT-RTX run on any
    return all(getattr(sidecar, name) == value for name, value in wanted.items())
