"""The CUDA runtime through ``cuda-bindings``: every status checked, every error one sentence."""

from __future__ import annotations

from typing import Any

from ...errors import ShowfaceError, UsageError

INSTALL = "install it with: pip install 'showface[tensorrt]' or 'showface[rtx]'"
MIB = 2**20


class CudaRuntime:
    """:class:`~.device.Cuda` on one real device.

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
            raise UsageError(f"--device cuda:{index}: {error}") from error

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return its result, if it has one."""
        status, *results = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            _, text = self._api.cudaGetErrorString(status)
            raise ShowfaceError(f"CUDA device {self._index}: {name}: {text.decode()}")
        return results[0] if results else None

    def activate(self) -> None:
        """Make this device the calling thread's; CUDA keeps the choice by thread."""
        self._call("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device.

        Raises:
            UsageError: there is not as much memory left.
        """
        status, address = self._api.cudaMalloc(size)
        if int(status) == int(self._api.cudaError_t.cudaErrorMemoryAllocation):
            free, _ = self._memory()
            raise UsageError(
                f"CUDA device {self._index}: not enough memory: {size / MIB:.0f} MiB asked for, {free / MIB:.0f} free; "
                "free some, or build with a smaller --max-batch"
            )
        if int(status) != 0:
            return int(self._call("cudaMalloc", size))  # the same fault again, as a sentence
        return int(address)

    def _memory(self) -> tuple[int, int]:
        status, free, total = self._api.cudaMemGetInfo()
        return (int(free), int(total)) if int(status) == 0 else (0, 0)

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
        return int(self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming))

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
        """Return the collected graph, ready to be launched."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Do all that a graph has collected, in the stream's order."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", graph)
