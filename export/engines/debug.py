"""Debug engines: a stage's marked graph, built like the stage's own engine and run on the device of the chain."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showface.runtime.backends.chain import Tensors
from showface.runtime.backends.tensorrt.chain import DeviceChain
from showface.runtime.backends.tensorrt.debug import run_once
from showface.runtime.backends.tensorrt.library import LIBRARIES, load_library
from showface.runtime.backends.tensorrt.sidecar import Sidecar, read_sidecar
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.stages import Stage

from .process import run_request
from .refusals import explain
from .request import BuildOptions, EngineRequest

if TYPE_CHECKING:
    import onnx

    from ..attribution import DebugRun


def debug_run(chain: DeviceChain, stage: Stage) -> DebugRun:
    """Return what runs a marked graph of ``stage`` as an engine on the chain's device; one graph is built once."""
    folder, built = chain.folder, dict[str, bytes]()

    def run(proto: onnx.ModelProto, inputs: Tensors, names: Sequence[str]) -> dict[str, Any]:
        trt, sidecar = load_library(folder.backend), read_sidecar(folder, stage.name)
        graph = proto.SerializeToString()
        digest = hashlib.sha256(graph).hexdigest()
        if digest not in built:
            built[digest] = build_debug_engine(graph, sidecar)
        outputs = run_once(trt, chain.cuda, built[digest], inputs, sidecar.version_compatible)
        return {name: outputs[name] for name in names}

    return run


def build_debug_engine(graph: bytes, sidecar: Sidecar) -> bytes:
    """Build a marked graph with the options of the stage's engine, in a folder that is gone afterwards.

    Raises:
        ShowfaceError: Polygraphy is missing, or the build failed; with what to do.
    """
    if importlib.util.find_spec("polygraphy") is None:
        extra = LIBRARIES[sidecar.backend].extra
        raise UsageError(f"a debug engine needs polygraphy; install it with: pip install 'showface[{extra}]'")
    options = BuildOptions(
        backend=sidecar.backend,
        target=sidecar.target,
        batches=(1, *sidecar.batches[1:]),  # one face is run, whatever the least batch
        tf32=sidecar.tf32,
        optimization_level=sidecar.optimization_level,
        workspace_mib=sidecar.workspace_mib,
        version_compatible=sidecar.version_compatible,
    )
    with (
        tempfile.TemporaryDirectory(prefix="showface-debug-") as temporary,
        system_errors(ShowfaceError, Path(temporary), "the debug engine cannot be written or read"),
    ):
        source, engine = Path(temporary) / "marked.onnx", Path(temporary) / "marked.engine"
        source.write_bytes(graph)
        digest = hashlib.sha256(graph).hexdigest()
        request = EngineRequest(sidecar.stage, str(source), digest, str(engine), sidecar.precision, False, options)
        outcome = run_request(request)
        if not outcome.good:
            raise ShowfaceError(f"the debug engine was not built: {explain(sidecar.stage, graph, outcome)}")
        return engine.read_bytes()
