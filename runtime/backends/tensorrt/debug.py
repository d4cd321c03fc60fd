"""Run an engine once whose outputs are not those of the stage table: a debug build, with inner tensors marked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceLostError, ShowfaceError, UsageError
from ..chain import Tensors
from .chain import MIN_SCRATCH
from .cuda import CudaRuntime
from .device import Context, owned, quietly
from .messages import error_recorder, library_logger


def run_once(
    trt: Any, cuda: CudaRuntime, data: bytes, inputs: Tensors, version_compatible: bool = False
) -> dict[str, NDArray[Any]]:
    """Return every output of an engine by name, in the shape and type that the engine gives it.

    The engine is one that this process has had built; a ``version_compatible`` one carries its runtime.

    Raises:
        ShowfaceError: TensorRT refuses the engine, an input or the work, or memory is short.
    """
    cuda.activate()  # a runtime works on the device that its thread has chosen
    runtime, recorder = trt.Runtime(library_logger(trt)), error_recorder(trt)
    runtime.error_recorder = recorder
    if version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        said = _because(recorder)
        raise ShowfaceError(f"{trt.__name__} {trt.__version__} refuses the debug engine on this GPU{said}")
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is None:
        raise ShowfaceError(f"no context of the debug engine could be made{_because(recorder)}; free device memory")
    fed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    for name, array in fed.items():
        if not context.set_input_shape(name, array.shape):
            raise ShowfaceError(f"the debug engine refuses {array.shape} for {name}")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names if name not in fed}
    results = {name: np.empty(tuple(context.get_tensor_shape(name)), dtype) for name, dtype in dtypes.items()}
    scratch = max(MIN_SCRATCH, int(engine.device_memory_size_v2))
    try:
        _execute(context, cuda, scratch, fed, results)
    except (ShowfaceError, RuntimeError, TypeError) as error:  # the bindings raise the last two
        if isinstance(error, UsageError | DeviceLostError):
            raise
        raise ShowfaceError(f"{error}{_because(recorder)}") from error
    return results


def _because(recorder: Any) -> str:
    said = recorder.take()
    return f": {said}" if said else ""


def _execute(context: Context, cuda: CudaRuntime, scratch: int, fed: Tensors, results: dict[str, NDArray[Any]]) -> None:
    """Fill ``results``; whatever happens, the device's memory and stream are given back."""
    with ExitStack() as stack:

        def allocate(size: int) -> int:
            return owned(stack, cuda.allocate(size), cuda.free)

        stream = owned(stack, cuda.create_stream(), cuda.destroy_stream)
        context.set_device_memory(allocate(scratch), scratch)
        addresses = {name: allocate(array.nbytes) for name, array in {**fed, **results}.items()}
        quietly(stack, cuda.synchronize, stream)  # before any of this memory can go
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise ShowfaceError(f"the debug engine has no tensor {name}")
        missing = context.infer_shapes()
        if missing:
            raise ShowfaceError(f"the debug engine wants inputs that it was not given: {', '.join(missing)}")
        for name, array in fed.items():
            cuda.upload(addresses[name], array.ctypes.data, array.nbytes, stream)
        if not context.execute_async_v3(stream):
            raise ShowfaceError("TensorRT could not run the debug engine")
        for name, array in results.items():
            cuda.download(array.ctypes.data, addresses[name], array.nbytes, stream)
        cuda.synchronize(stream)
