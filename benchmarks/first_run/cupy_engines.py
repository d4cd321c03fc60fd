"""Engines whose work CuPy does on the chain's own stream and memory: the device chain on real CUDA without TensorRT.

Every stage fills its outputs in place and allocates nothing, so that its work can be captured. Over the tests' fake
numpy does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from showface.runtime.backends.batches import Shapes, batch_sizes
from showface.runtime.backends.tensorrt.chain import SLOTS, DeviceChain
from showface.runtime.backends.tensorrt.engine import Engine, Graphs, RunOptions
from showface.runtime.backends.tensorrt.session import Lane
from showface.runtime.stages import STAGES, TENSORS, Stage

SHAPES = Shapes(256, 64)
SCRATCH = 4096


def expected(image: Any, mask: Any) -> Any:
    """Return what the chain of these engines makes of a batch."""
    return image * np.float32(0.5) + mask


def fill(xp: Any, stage: Stage, tensors: dict[str, Any]) -> None:
    """Fill a stage's outputs: a little arithmetic at the ends, constants between."""
    if stage.name == "coarse":
        xp.multiply(tensors["image"], np.float32(0.5), out=tensors["coarse_image"])
    elif stage.name == "refiner":
        xp.add(tensors["coarse_image"], tensors["mask"], out=tensors["completed_image"])
    elif stage.name == "joined":
        xp.multiply(tensors["image"], np.float32(0.5), out=tensors["completed_image"])
        xp.add(tensors["completed_image"], tensors["mask"], out=tensors["completed_image"])
    else:
        for name in stage.outputs:
            tensors[name].fill(3)


class CupyContext:
    """:class:`showface.runtime.backends.tensorrt.device.Context`."""

    def __init__(self, cuda: Any, stage: Stage, fake: bool) -> None:
        self.cuda, self.stage, self.fake = cuda, stage, fake
        self.batch, self.addresses, self.scratch = 0, dict[str, int](), 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """There is one."""
        return profile_index == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Take the batch."""
        self.batch = shape[0]
        return shape == SHAPES.shape(name, self.batch)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Take it."""
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        """TensorRT wants an alignment that the fake's memory does not have."""
        if not self.fake and memory % 256:
            raise AssertionError(f"scratch memory at {memory:#x} is not aligned to 256 bytes")
        self.scratch = memory

    def infer_shapes(self) -> list[str]:
        """Nothing is missing."""
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return what the stage table says."""
        return SHAPES.shape(name, self.batch)

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Give the stage's work to the stream."""
        names = (*self.stage.inputs, *self.stage.outputs)
        if self.fake:
            views = {}
            for name in names:
                memory = self.cuda.memory(self.addresses[name], SHAPES.size(name, self.batch))
                views[name] = memory.view(TENSORS[name].dtype).reshape(SHAPES.shape(name, self.batch))
            reads, writes = ({self.addresses[name] for name in of} for of in (self.stage.inputs, self.stage.outputs))
            self.cuda.enqueue(stream_handle, reads, {*writes, self.scratch}, lambda: fill(np, self.stage, views))
            return True
        import cupy

        with cupy.cuda.ExternalStream(stream_handle):
            fill(cupy, self.stage, {name: self._view(cupy, name) for name in names})
        return True

    def _view(self, cupy: Any, name: str) -> Any:
        memory = cupy.cuda.UnownedMemory(self.addresses[name], SHAPES.size(name, self.batch), self)
        pointer = cupy.cuda.MemoryPointer(memory, 0)
        return cupy.ndarray(SHAPES.shape(name, self.batch), np.dtype(TENSORS[name].dtype), pointer)


def open_chain(cuda: Any, greatest: int, graphs: Graphs, fake: bool) -> DeviceChain:
    """Return a device chain of such engines for batches of 1 to ``greatest``."""
    return open_chain_of(STAGES, cuda, greatest, graphs, fake)


def open_chain_of(stages: Sequence[Stage], cuda: Any, greatest: int, graphs: Graphs, fake: bool) -> DeviceChain:
    """Return one of these stages, which together take the chain's inputs and give its output."""
    sizes = batch_sizes(1, greatest)
    engines = [
        Engine(
            stage,
            [[Lane(CupyContext(cuda, stage, fake), 0, (size,)) for size in sizes] for _ in range(SLOTS)],
            SCRATCH,
        )
        for stage in stages
    ]
    folder: Any = SimpleNamespace(bundle=None, backend="CuPy")
    return DeviceChain(engines, sizes, SHAPES, cuda, folder, "CuPy", RunOptions(graphs))
