"""The builder's process: one request on standard input, events as JSON lines on standard output.

Each engine has a process of its own, so that a crash of the library, or running out of memory, ends the build
of that stage only. Run by :mod:`.process`; events are ``{"phase", "steps"}``, ``{"phase", "step"}``, and at last
``{"result": {…}}`` or ``{"refused": [{…}], "facts": {…}}`` or ``{"failed": "…"}``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from showface.runtime.backends.tensorrt.library import load_library
from showface.runtime.backends.tensorrt.messages import error_recorder
from showface.runtime.backends.tensorrt.sidecar import AMPERE_PLUS, profiles_of
from showface.runtime.errors import UsageError

from .network import NodeRefusal, io_dtypes, parse, product_dtypes, wrong_products
from .request import BuildOptions, EngineRequest

Event = dict[str, Any]
MIB = 2**20


def main() -> None:
    """Serve the request on standard input; what libraries print goes to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Polygraphy and the libraries log to standard output
    request = EngineRequest.from_json(sys.stdin.readline())
    try:
        outcome = serve(request, events)
    except UsageError as error:
        outcome = {"failed": str(error)}
    except MemoryError:
        outcome = {"failed": "the builder ran out of memory"}
    _send(events, outcome)


def serve(request: EngineRequest, events: TextIO) -> Event:
    """Parse the graph, build and write the engine, and return the last event.

    Raises:
        UsageError: the library is missing, or the graph is not the one that was asked for.
    """
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(request.options.backend == "tensorrt-rtx"))
    trt = load_library(request.options.backend)
    from polygraphy.backend.trt import CreateNetwork
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.ERROR
    data = Path(request.onnx).read_bytes()
    if hashlib.sha256(data).hexdigest() != request.onnx_sha256:
        raise UsageError(f"{request.onnx}: changed while it was about to be built; run the same command again")
    builder, network = CreateNetwork(strongly_typed=True)()
    refused = parse(trt, network, builder.logger, data) or wrong_products(network, request)
    facts = {
        "dtypes": io_dtypes(network),
        "products": product_dtypes(network),
    }
    if refused:
        return {"refused": [asdict(refusal) for refusal in refused], "facts": facts}
    if request.check_only:
        return {"result": facts}
    recorder = error_recorder(trt)
    builder.error_recorder = recorder
    started = time.monotonic()
    engine = _build(trt, builder, network, request, events)
    if engine is None:
        return {"refused": [asdict(refusal_of_builder(recorder.take()))], "facts": facts}
    Path(request.engine).write_bytes(memoryview(engine))
    return {"result": {**facts, "build_seconds": round(time.monotonic() - started, 3)}}


def _build(trt: Any, builder: Any, network: Any, request: EngineRequest, events: TextIO) -> Any:
    """Return the serialised engine, or None where the builder refused."""
    from polygraphy.backend.trt import EngineBytesFromNetwork
    from polygraphy.exception import PolygraphyException

    options = request.options
    config = create_config(trt, network, options, _progress_monitor(trt, events))(builder, network)
    # On by default in one library, off in Polygraphy's config of the other: it is set in both directions.
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # TensorRT's engines take all memory from the caller anyway
        # Otherwise the engine may allocate while it runs, which the capture of a CUDA graph forbids.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    try:
        return EngineBytesFromNetwork(
            (builder, network), lambda _builder, _network: config, save_timing_cache=options.timing_cache
        )()
    except PolygraphyException:
        return None
    finally:
        if options.timing_cache is not None:
            Path(f"{options.timing_cache}.lock").unlink(missing_ok=True)  # Polygraphy leaves it


def create_config(trt: Any, network: Any, options: BuildOptions, monitor: Any) -> Any:
    """Return Polygraphy's loader of the builder's config; the one place where the two libraries part."""
    from polygraphy.backend.trt import CreateConfig, Profile

    profiles = []
    for batches in profiles_of(options.batches, options.profiles):
        profile = Profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            profile.add(tensor.name, *((batch, *tuple(tensor.shape)[1:]) for batch in batches))
        profiles.append(profile)
    limits = {} if options.workspace_mib is None else {trt.MemoryPoolType.WORKSPACE: options.workspace_mib * MIB}
    if options.backend == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        return CreateConfigRTX(
            compute_capabilities=[divmod(int(options.target.removeprefix("sm_")), 10)],
            profiles=profiles,
            memory_pool_limits=limits,
            builder_optimization_level=options.optimization_level,
            progress_monitor=monitor,
        )
    compatible = trt.HardwareCompatibilityLevel.AMPERE_PLUS if options.target == AMPERE_PLUS else None
    return CreateConfig(
        profiles=profiles,
        memory_pool_limits=limits,
        builder_optimization_level=options.optimization_level,
        progress_monitor=monitor,
        version_compatible=options.version_compatible,
        load_timing_cache=options.timing_cache,
        hardware_compatibility_level=compatible,
    )


def _progress_monitor(trt: Any, events: TextIO) -> Any:
    """Return a monitor that reports the outermost phases."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.outer: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outer[name] = steps
                _send(events, {"phase": name, "steps": steps})

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.outer:
                _send(events, {"phase": name, "step": step + 1})
            return True

        def phase_finish(self, name: str) -> None:
            if name in self.outer:  # the last step is not told
                _send(events, {"phase": name, "step": self.outer.pop(name)})

    return Monitor()


def refusal_of_builder(said: str) -> NodeRefusal:
    """Return the refusal of an engine, with what to do, from what the builder has said of it."""
    reason = said or "the builder gave no reason"
    remedy, argument = "raise the optimization level to 5, or build for another target", "optimization_level"
    if any(word in reason.lower() for word in ("out of memory", "outofmemory", "bad_alloc")):
        remedy, argument = "lower the greatest batch, or free memory", "max_batch"
    elif "nvinfer_lean" in reason:
        argument = "version_compatible"
        remedy = (
            "version-compatible engines need TensorRT's lean runtime: pip install tensorrt_lean, or apt install "
            "libnvinfer-lean, or build others"
        )
    named = reason.partition("operation '")[2].partition("'")[0]
    return NodeRefusal(named, "", reason, remedy, argument)


def _send(events: TextIO, event: Event) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    main()
