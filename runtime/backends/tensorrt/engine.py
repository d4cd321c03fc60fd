"""From the bytes of a checked engine to an execution context that scratch memory is lent to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ...stages import TENSORS, Stage
from .device import Context
from .session import Shapes
from .sidecar import EngineFolder, Sidecar

DTYPES = {"float32": "FLOAT", "int32": "INT32"}  # the stage table's types by TensorRT's names


@dataclass(frozen=True, slots=True)
class Engine:
    """A deserialised engine.

    Attributes:
        stage: its entry of the stage table.
        context: to run it; it keeps the engine alive.
        scratch_bytes: what it needs while it runs, at its greatest batch.
        batches: least, best and greatest batch.
    """

    stage: Stage
    context: Context
    scratch_bytes: int
    batches: tuple[int, int, int]


def load_engine(
    trt: Any,
    runtime: Any,
    data: bytes,
    folder: EngineFolder,
    sidecar: Sidecar,
    stage: Stage,
    shapes: Shapes,
    cuda_graph: bool = False,
) -> Engine:
    """Deserialise an engine whose hash and sidecar have been checked.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        runtime: its ``Runtime``.
        data: the engine.
        folder: where it came from.
        sidecar: what it says of itself.
        stage: that it should be of.
        shapes: of the bundle's tensors.
        cuda_graph: whether its work will be captured.

    Raises:
        UsageError: the library refuses it, or its tensors or profile are not those that were promised.
    """
    path = folder.engine(stage.name)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise UsageError(f"{path}: {folder.backend} {trt.__version__} refuses it on this GPU; {folder.rebuild}")
    _check_tensors(trt, engine, folder, sidecar, stage, shapes)
    context = _context(trt, engine, folder.backend, cuda_graph)
    if context is None:
        raise UsageError(f"{path}: no execution context could be made, probably for want of memory; free some")
    return Engine(stage, context, int(engine.device_memory_size_v2), sidecar.batches)


def _context(trt: Any, engine: Any, backend: str, cuda_graph: bool) -> Any:
    """Return an execution context that is lent its scratch memory.

    TensorRT-RTX compiles kernels for a shape in the background and uses others until they are ready. A graph
    would capture those others for good, so that for a graph it has to compile at once.
    """
    user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if backend != "tensorrt-rtx" or not cuda_graph:
        return engine.create_execution_context(user_managed)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(user_managed)
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)


def _check_tensors(trt: Any, engine: Any, folder: EngineFolder, sidecar: Sidecar, stage: Stage, shapes: Shapes) -> None:
    """Compare the engine with the stage table and the sidecar's profile."""
    path, mend = folder.engine(stage.name), folder.rebuild
    found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    if found != {*stage.inputs, *stage.outputs}:
        raise UsageError(f"{path}: has the tensors {sorted(found)}, not those of stage {stage.name}; {mend}")
    for name in (*stage.inputs, *stage.outputs):
        dtype = engine.get_tensor_dtype(name)
        if dtype != getattr(trt.DataType, DTYPES[TENSORS[name].dtype]):
            raise UsageError(f"{path}: {name} is {dtype}, not {TENSORS[name].dtype}; {mend}")
    for name in stage.inputs:
        profile = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
        if profile != [shapes.shape(name, batch) for batch in sidecar.batches]:
            raise UsageError(f"{path}: its profile of {name} is {profile}, its sidecar says {sidecar.batches}; {mend}")
