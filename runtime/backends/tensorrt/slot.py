"""One slot of the chain on the device: its memory, its events and its execution contexts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ...errors import ShowfaceError
from ...stages import CHAIN_INPUTS, CHAIN_OUTPUT
from ..batches import Chunk, Shapes
from ..chain import Faces
from .cuda import CudaRuntime
from .session import EngineStep


@dataclass(frozen=True, slots=True)
class Streams:
    """What works at the same time: copies to the device, the engines, and copies from the device."""

    upload: int
    compute: int
    download: int

    @property
    def every(self) -> tuple[int, int, int]:
        """All three."""
        return self.upload, self.compute, self.download


@dataclass(slots=True)
class Slot:
    """Memory for a chunk at a time, page-locked on the host and on the device, its events, and its engines.

    Attributes:
        addresses: of all tensors of the chain on the device; those between the ends are shared by the slots.
        host: of the ends, at the greatest batch.
        uploaded: the event after the last upload.
        computed: the event after the last engine.
        downloaded: the event after the download.
        engines: in order; each has a context that no other slot uses, where the library makes as many.
        graphs: captured, by batch.
    """

    addresses: Mapping[str, int]
    host: Mapping[str, NDArray[Any]]
    uploaded: int
    computed: int
    downloaded: int
    engines: list[EngineStep]
    graphs: dict[int, int] = field(default_factory=dict)

    def start(
        self,
        chunk: Chunk,
        images: Faces,
        masks: Faces,
        shapes: Shapes,
        cuda: CudaRuntime,
        streams: Streams,
    ) -> None:
        """Give a chunk of faces to the device, upload to download; the host does not wait.

        Raises:
            ShowfaceError: CUDA or TensorRT refuses something; what was given before may still be under way.
        """
        for name, faces in zip(CHAIN_INPUTS, (images, masks), strict=True):
            chunk.cut(faces, self.host[name])
            size = shapes.size(name, chunk.batch)
            cuda.upload(self.addresses[name], self.host[name].ctypes.data, size, streams.upload)
        cuda.record(self.uploaded, streams.upload)
        cuda.wait(streams.compute, self.uploaded)
        graph = self.graphs.get(chunk.batch)
        if graph is None:
            self.bind(chunk.batch)
            self.execute(streams.compute)
        else:
            cuda.launch(graph, streams.compute)
        cuda.record(self.computed, streams.compute)
        cuda.wait(streams.download, self.computed)
        size = shapes.size(CHAIN_OUTPUT, chunk.batch)
        target, source = self.host[CHAIN_OUTPUT].ctypes.data, self.addresses[CHAIN_OUTPUT]
        cuda.download(target, source, size, streams.download)
        cuda.record(self.downloaded, streams.download)

    def bind(self, batch: int) -> None:
        """Tell all engines the batch and this slot's memory."""
        for engine in self.engines:
            engine.bind(batch, self.addresses)

    def execute(self, stream: int) -> None:
        """Give all engines' work to a stream; nothing else is called, so that it can be captured."""
        for engine in self.engines:
            engine.execute(stream)

    def capture(self, batch: int, cuda: CudaRuntime, stream: int) -> int:
        """Return a graph of all engines' work on a batch, which has been bound and run before.

        Raises:
            ShowfaceError: an engine cannot be captured; the stream works as before.
        """
        for engine in self.engines:
            asked = getattr(engine.context, "is_stream_capturable", None)  # of TensorRT-RTX alone
            if asked is not None and not asked(stream):
                raise ShowfaceError(f"stage {engine.stage.name}: the engine cannot be captured on a stream")
        cuda.begin_capture(stream)
        try:
            self.execute(stream)
        except BaseException:
            with suppress(ShowfaceError):  # the first error is the one that tells
                cuda.abort_capture(stream)
            raise
        return cuda.end_capture(stream)
