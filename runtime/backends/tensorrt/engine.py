"""From the bytes of a checked engine to execution contexts that scratch memory is lent to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ...errors import UsageError
from ...stages import TENSORS, Stage
from ..batches import Shapes
from .device import Context
from .kernel_cache import KernelCache
from .messages import error_recorder, library_logger
from .session import Lane
from .sidecar import EngineFolder, Sidecar, profiles_of

logger = logging.getLogger(__name__)
DTYPES = {"float32": "FLOAT", "int32": "INT32"}  # the stage table's types by TensorRT's names
RTX = "tensorrt-rtx"
HEADER = 64  # bytes of an engine that TensorRT-RTX judges it by


class Graphs(StrEnum):
    """How the engines' work is launched: piece by piece, or as CUDA graphs."""

    OFF = "off"
    LIBRARY = "library"  # TensorRT-RTX captures by itself, again where shapes or better kernels come
    CAPTURE = "capture"  # the chain captures all engines' work for each batch in one graph


def choose_graphs(trt: Any, backend: str, wanted: bool) -> Graphs:
    """Return how graphs are made where they are wanted: by the library where it can."""
    if not wanted:
        return Graphs.OFF
    return Graphs.LIBRARY if backend == RTX and hasattr(trt, "CudaGraphStrategy") else Graphs.CAPTURE


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How engines are run.

    Attributes:
        graphs: how their work is launched.
        batch_limit: faces a batch at most; None for as many as the engines take.
        cache: of compiled kernels.
    """

    graphs: Graphs = Graphs.OFF
    batch_limit: int | None = None
    cache: KernelCache = field(default_factory=lambda: KernelCache(None))

    @property
    def compile_first(self) -> bool:
        """Whether TensorRT-RTX compiles the kernels of a batch before it runs it, and not in the background meanwhile.

        A graph that the chain captures would keep the kernels that stand in for them. And a process of one photograph
        would end before they are ready, so that they would never get into the cache and each process began anew.
        """
        return self.graphs is Graphs.CAPTURE or (self.batch_limit == 1 and self.cache.kept)


@dataclass(frozen=True, slots=True)
class Engine:
    """A deserialised engine.

    Attributes:
        stage: its entry of the stage table.
        slots: contexts to run it, of each slot of the chain, or those that all slots share.
        scratch_bytes: what each context needs while it runs, at its greatest batch.
        recorder: of the errors of its runtime, its own and its contexts'.
        kept: what a context needs while it lives, but does not hold itself in every version.
    """

    stage: Stage
    slots: list[list[Lane]]
    scratch_bytes: int
    recorder: Any = None
    kept: list[Any] = field(default_factory=list)

    @property
    def contexts(self) -> list[Context]:
        """All of them."""
        return [lane.context for lanes in self.slots for lane in lanes]

    def lanes(self, slot: int) -> list[Lane]:
        """Return the contexts of a slot."""
        return self.slots[slot % len(self.slots)]

    def capturable(self, slots: int) -> bool:
        """Return whether each batch of each slot has a context of its own.

        A graph is spoilt when the context that it was captured from gets other shapes or addresses (TensorRT's best
        practices: one execution context for each captured graph).
        """
        return len(self.slots) == slots and all(len(lane.batches) == 1 for lanes in self.slots for lane in lanes)

    def choose_profile(self, stream: int) -> None:
        """Give every context its profile; where contexts cannot share one, the first of each serves all slots.

        The first context of an engine has profile 0 from the start. Whether others have one depends on the version.
        """
        first = self.slots[0][0]
        for lane in [lane for lanes in self.slots for lane in lanes]:
            if lane is first or lane.context.set_optimization_profile_async(lane.profile, stream):
                continue
            logger.warning("stage %s: contexts cannot share a profile; %s", self.stage.name, self.reason())
            every = self.slots[0]
            kept = [next(one for one in every if one.profile == k) for k in sorted({one.profile for one in every})]
            for one in kept:
                one.batches = tuple(b for other in every if other.profile == one.profile for b in other.batches)
            self.slots[:] = [kept]
            return

    def reason(self) -> str:
        """Return what TensorRT has said of the engine since it was last asked."""
        return str(self.recorder.take()) if self.recorder is not None else ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine without a context: the library's object, its runtime and its recorder."""

    stage: Stage
    sidecar: Sidecar
    engine: Any
    runtime: Any
    recorder: Any


def deserialise(trt: Any, data: bytes, folder: EngineFolder, sidecar: Sidecar, stage: Stage, shapes: Shapes) -> Loaded:
    """Deserialise an engine whose hash and sidecar have been checked; each has a runtime, so that threads may do it.

    Raises:
        UsageError: the library refuses it, or its tensors or profile are not those that were promised.
    """
    runtime, recorder = trt.Runtime(library_logger(trt)), error_recorder(trt)
    runtime.error_recorder = recorder
    if sidecar.version_compatible:
        runtime.engine_host_code_allowed = True  # such an engine carries the runtime that it was built with
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        why = "; ".join(text for text in (_invalid(trt, runtime, data), recorder.take()) if text)
        path, refuses = folder.engine(stage.name), f"{folder.backend} {trt.__version__} refuses it on this GPU"
        raise UsageError(f"{path}: {refuses}{f' ({why})' if why else ''}; {folder.rebuild}")
    _check_tensors(trt, engine, folder, sidecar, stage, shapes)
    return Loaded(stage, sidecar, engine, runtime, recorder)


def _invalid(trt: Any, runtime: Any, data: bytes) -> str:
    """Return why TensorRT-RTX holds an engine for invalid, in its own words: ``old cuda driver, unsupported cc``."""
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    _, diagnostics = runtime.get_engine_validity(data[:HEADER])
    flags = trt.EngineInvalidityDiagnostics.__members__
    found = [name for name, flag in flags.items() if int(diagnostics) & int(flag)]
    return ", ".join(name.lower().replace("_", " ") for name in found)


def make_contexts(
    trt: Any, loaded: Loaded, folder: EngineFolder, slots: int, sizes: Sequence[int], how: RunOptions
) -> Engine:
    """Return an engine with the contexts of ``slots`` slots; of one that all share where the library makes no more.

    Raises:
        UsageError: not even those of one slot could be made.
    """
    engine, contexts, kept = loaded.engine, list[Context](), [loaded.engine, loaded.runtime]
    profiles = profiles_of(loaded.sidecar.batches, loaded.sidecar.profiles)
    beside = slots == 1  # the occluder, whose work is never captured
    plan = lane_plan(sizes, profiles, how.graphs is not Graphs.OFF and not beside)
    for _ in range(slots * len(plan)):
        config = _runtime_config(trt, engine, folder.backend, how)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED if config is None else config
        context = engine.create_execution_context(strategy)
        if context is None:
            break
        contexts.append(context)
        kept.append(config)
    if len(contexts) < slots * len(plan):
        slots, plan = 1, lane_plan(sizes, profiles, False)
    if len(contexts) < len(plan):
        why = loaded.recorder.take() or "probably for want of memory"
        path = folder.engine(loaded.stage.name)
        raise UsageError(f"{path}: no execution context could be made: {why}; free some device memory")
    given = iter(contexts)
    lanes = [[Lane(next(given), profile, batches) for profile, batches in plan] for _ in range(slots)]
    size = int(engine.device_memory_size_v2)
    return Engine(loaded.stage, lanes, size, loaded.recorder, kept)


def lane_plan(
    sizes: Sequence[int], profiles: Sequence[tuple[int, int, int]], one_a_batch: bool
) -> list[tuple[int, tuple[int, ...]]]:
    """Return the profile and the batches of each context of a slot: one a profile that is run, or one a batch.

    >>> lane_plan((1, 2, 4, 8), ((1, 1, 1), (2, 8, 8)), False)
    [(0, (1,)), (1, (2, 4, 8))]
    >>> lane_plan((1, 2), ((1, 8, 8),), True)
    [(0, (1,)), (0, (2,))]
    """
    plan = list[tuple[int, tuple[int, ...]]]()
    for profile, (least, _, greatest) in enumerate(profiles):
        taken = tuple(size for size in sizes if least <= size <= greatest)
        plan += [(profile, (size,)) for size in taken] if one_a_batch else [(profile, taken)] if taken else []
    return plan


def _runtime_config(trt: Any, engine: Any, backend: str, how: RunOptions) -> Any:
    """Return how TensorRT-RTX runs an engine, or None for TensorRT, which knows no such thing."""
    if backend != RTX:
        return None
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if how.compile_first:
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    if how.graphs is Graphs.LIBRARY:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    how.cache.attach(config)
    return config


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
    if engine.num_optimization_profiles != sidecar.profiles:
        found = engine.num_optimization_profiles
        raise UsageError(f"{path}: the number of its profiles is {found}, its sidecar says {sidecar.profiles}; {mend}")
    for index, batches in enumerate(profiles_of(sidecar.batches, sidecar.profiles)):
        for name in stage.inputs:
            profile = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)]
            if profile != [shapes.shape(name, batch) for batch in batches]:
                raise UsageError(f"{path}: its profile of {name} is {profile}, its sidecar says {batches}; {mend}")
