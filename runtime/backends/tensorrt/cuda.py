"""The CUDA runtime through ``cuda-bindings``: every status checked, every error one sentence."""

from __future__ import annotations

import os
from typing import Any

from ...errors import DeviceLostError, ShowfaceError, UsageError
from ..cuda_devices import OLD_DRIVER, STICKY_ERRORS, driver_version, lost_device

INSTALL = "install it with: pip install 'showface[tensorrt]' or 'showface[rtx]'"
MIB = 2**20
FEW_CORES = 8  # up to this many, a host thread that spins in a wait takes what readers and writers need


class CudaRuntime:
    """One CUDA device. Handles and addresses are integers; every call raises what it cannot do.

    Raises:
        UsageError: cuda-bindings is missing, or the device cannot be used.
    """

    def __init__(self, index: int) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise UsageError(f"engines need cuda-bindings: {error}; {INSTALL}") from error
        self._api: Any = runtime
        self._index = index
        try:
            self.activate()
        except ShowfaceError as error:
            raise UsageError(f"cuda:{index}: {error}", "device") from error

    def _ask(self, name: str, *arguments: Any) -> tuple[int, list[Any]]:
        """Call a function of the runtime and return its status and results.

        Raises:
            ShowfaceError: there is no driver that could be called.
        """
        try:
            status, *results = getattr(self._api, name)(*arguments)
        except RuntimeError as error:  # some versions of cuda-bindings raise where others return a status
            raise ShowfaceError(f"CUDA device {self._index}: {name}: {error}") from error
        return int(status), results

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return its result, if it has one.

        Raises:
            DeviceLostError: no later call can succeed.
            ShowfaceError: the call failed.
        """
        status, results = self._ask(name, *arguments)
        if status != 0:
            raise self._error(name, status)
        return results[0] if results else None

    def _error(self, name: str, status: int) -> ShowfaceError:
        try:
            _, text = self._api.cudaGetErrorString(self._api.cudaError_t(status))
        except ValueError:  # a newer driver's error that these bindings do not know
            text = b"unknown error"
        reason = f"{name}: {text.decode()} ({status})"
        if status in STICKY_ERRORS:
            return DeviceLostError(lost_device(self._index, reason))
        remedy = f"; {_old_driver()}" if status == OLD_DRIVER else ""
        return ShowfaceError(f"CUDA device {self._index}: {reason}{remedy}")

    def activate(self) -> None:
        """Make this device the calling thread's; CUDA keeps the choice by thread."""
        self._call("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device.

        Raises:
            UsageError: there is not as much memory left.
        """
        status, results = self._ask("cudaMalloc", size)
        if status == int(self._api.cudaError_t.cudaErrorMemoryAllocation):
            free = self.free_memory()
            raise UsageError(
                f"CUDA device {self._index}: not enough memory: {size / MIB:.0f} MiB asked for, {free / MIB:.0f} free; "
                "free some, or use a smaller batch"
            )
        if status != 0:
            raise self._error("cudaMalloc", status)
        return int(results[0])

    def free_memory(self) -> int:
        """Return the free bytes of the device; 0 where that cannot be asked."""
        status, results = self._ask("cudaMemGetInfo")
        return int(results[0]) if status == 0 else 0

    def free(self, address: int) -> None:
        """Give back what :meth:`allocate` returned."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size: int) -> int:
        """Return the address of ``size`` page-locked bytes on the host."""
        return int(self._call("cudaMallocHost", size))

    def free_pinned(self, address: int) -> None:
        """Give back what :meth:`allocate_pinned` returned."""
        self._call("cudaFreeHost", address)

    def create_stream(self) -> int:
        """Return a new stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait on the host until the stream has nothing left to do."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        """Return a new event."""
        flags = self._api.cudaEventDisableTiming
        if (os.cpu_count() or 1) <= FEW_CORES:
            flags |= self._api.cudaEventBlockingSync
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Let ``event`` stand for all that the stream has been given so far."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Let what the stream is given from now on wait for ``event``; the host goes on."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait on the host for ``event``."""
        self._call("cudaEventSynchronize", event)

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy from the host to the device, in the stream's order."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy from the device to the host, in the stream's order."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """Collect what the stream is given from now on in a graph, instead of doing it."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """Return the collected graph, on the device and ready to be launched."""
        try:
            graph = self._call("cudaStreamEndCapture", stream)
            try:
                executable = int(self._call("cudaGraphInstantiate", graph, 0))
            finally:
                self._ask("cudaGraphDestroy", graph)
            try:
                self._call("cudaGraphUpload", executable, stream)
            except ShowfaceError:
                self._ask("cudaGraphExecDestroy", executable)
                raise
        except ShowfaceError:
            self._ask("cudaGetLastError")  # TensorRT would find it after its next launch, and take it for its own
            raise
        return executable

    def abort_capture(self, stream: int) -> None:
        """End a capture that went wrong; nothing of it is kept, and its error is taken off the runtime."""
        status, results = self._ask("cudaStreamEndCapture", stream)
        if status == 0 and int(results[0]) != 0:
            self._ask("cudaGraphDestroy", results[0])
        self._ask("cudaGetLastError")

    def launch(self, graph: int, stream: int) -> None:
        """Do all that a graph has collected, in the stream's order."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", graph)


def _old_driver() -> str:
    """Return what to do where the driver is older than the CUDA that cuda-bindings was built for."""
    import cuda.bindings

    found, bindings = driver_version(), cuda.bindings.__version__
    runs = "" if found is None else f"; the driver runs CUDA up to {found[0]}.{found[1]}"
    cure = "update the NVIDIA driver"
    if found is not None and found[0] < int(bindings.partition(".")[0]):
        cure = f"install bindings that suit it with: pip install 'cuda-bindings=={found[0]}.*', or {cure}"
    return f"cuda-bindings {bindings} needs a newer one{runs}; {cure}"
