"""What every candidate is made of: float graphs, ranges and sessions of one bundle."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, numpy_helper

from showface.runtime.backends.chain import Session
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import Bundle
from showface.runtime.stages import Stage
from showface.runtime.version import __version__

from ..pace import pace
from ..placement import RULES, placed_tensors, quantizable, tensor_groups
from ..quantize import Range, quantize
from ..ranges import PERCENTILES, SAMPLE, RangeOptions, cached_ranges, collapsed, find_ranges
from ..recording import Recorded, Recording
from ..settings import Calibrator, Target
from .plan import Plan, exception_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """One stage with ``groups`` in 8 bits: the ONNX model, and a session of it."""

    groups: tuple[str, ...]
    model: bytes
    session: Session


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every candidate is made of.

    Attributes:
        stages: stages of the bundle's variant, in order.
        graphs: float graph of each stage.
        ranges: of each stage's tensors, under each setting of the method; the first stands.
        target: who will run the result.
        sessions: sessions of the float bundle, in order.
        threads: how many faces run side by side, each on one thread.
        exceptions: of each stage, the setting of those layer groups that have another than the stage.
        made: of each stage, what was made last; quantising takes half a second.
    """

    stages: tuple[Stage, ...]
    graphs: Mapping[str, ModelProto]
    ranges: Mapping[str, RangeOptions]
    target: Target
    sessions: Mapping[str, Session]
    threads: int
    exceptions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict, repr=False)

    def groups(self) -> dict[str, list[str]]:
        """Return the layer groups of each stage."""
        return {
            stage.name: list(quantizable(self.graphs[stage.name], stage.name, self.target)) for stage in self.stages
        }

    def weights(self, stage: str, groups: Collection[str]) -> int:
        """Return how many weights but zeros the layers ``groups`` of ``stage`` have, products of two tensors none."""
        stored = {tensor.name: tensor for tensor in self.graphs[stage].graph.initializer}
        nodes = quantizable(self.graphs[stage], stage, self.target)
        read = [node.input[1] for group in groups for node in nodes[group] if node.input[1] in stored]
        return sum(int(np.count_nonzero(numpy_helper.to_array(stored[name]))) for name in read)

    def make(self, stage: str, groups: Collection[str]) -> Made:
        """Return ``stage`` with ``groups``, at least one, in 8 bits."""
        groups = tuple(groups)
        if stage not in self.made or self.made[stage].groups != groups:
            graph = quantize(self.graphs[stage], stage, self.target, groups, self.used_ranges(stage))
            data = graph.SerializeToString()
            self.made[stage] = Made(groups, data, open_session(data, self.sessions[stage].stage, None, 1))
        return self.made[stage]

    def used_ranges(self, stage: str) -> dict[str, Range]:
        """Return the ranges of the tensors of ``stage``, each under the setting of its layer group."""
        ranges = dict(self.ranges[stage][self.settings()[stage]])
        exceptions = self.exceptions.get(stage, {})
        for tensor, group in tensor_groups(self.graphs[stage], stage, self.target).items():
            if group in exceptions and tensor in ranges:
                ranges[tensor] = self.ranges[stage][exceptions[group]][tensor]
        return ranges

    def settings(self) -> dict[str, str]:
        """Return the setting of the method that each stage's ranges were found with."""
        return {stage: next(iter(options)) for stage, options in self.ranges.items()}

    def chosen(self, method: Calibrator) -> dict[str, str]:
        """Return the settings of those stages for which ``method`` has more than one, and the exceptions.

        The key of an exception is :func:`~.plan.exception_key` of stage and layer group.
        """
        chosen = {stage: setting for stage, setting in self.settings().items() if setting != method}
        for stage, exceptions in self.exceptions.items():
            chosen.update({exception_key(stage, group): setting for group, setting in exceptions.items()})
        return chosen

    def with_setting(self, stage: str, setting: str) -> Workshop:
        """Return the workshop with the ranges of ``stage`` under ``setting``."""
        options = self.ranges[stage]
        return replace(self, ranges={**self.ranges, stage: {setting: options[setting], **options}}, made={})

    def with_exception(self, stage: str, group: str, setting: str) -> Workshop:
        """Return the workshop in which a layer group of ``stage`` has ranges of its own ``setting``."""
        others = {name: kept for name, kept in self.exceptions.get(stage, {}).items() if name != group}
        if setting != self.settings()[stage]:
            others[group] = setting
        return replace(self, exceptions={**self.exceptions, stage: others}, made={})

    def open(self, plan: Plan) -> dict[str, Session]:
        """Return the sessions of a plan; the stages that it leaves in float are those of the float bundle."""
        return {stage.name: self.open_stage(stage.name, plan.quantized(stage.name)) for stage in self.stages}

    def open_stage(self, name: str, groups: Collection[str]) -> Session:
        """Return a session of one stage with ``groups`` in 8 bits; the float bundle's own if there are none."""
        return self.make(name, groups).session if groups else self.sessions[name]


def open_workshop(
    bundle: Bundle,
    graphs: Mapping[str, ModelProto],
    recording: Recording,
    digest: str,
    target: Target,
    method: Calibrator,
    work: Path,
    threads: int,
) -> Workshop:
    """Find the ranges of all stages, or take those that ``work`` holds for the same data, graphs and versions.

    The graphs are those of :func:`showface.calibration.rewrites.float_graph.float_graph`; ``digest`` is of the files
    of the recorded faces, which set the ranges.
    """
    ranges = {}
    for count, stage in enumerate(bundle.manifest.stages):
        graph = graphs[stage.name]
        key = {
            "onnx": hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
            "data": digest,
            "faces": len(recording.pairs),
            "method": str(method),
            "target": str(target),
            "tensors": placed_tensors(graph, stage.name, target),
            "versions": library_versions(),
        }
        path = work / f"ranges-{target}-{method}-{stage.name}.json"
        total = len(bundle.manifest.stages) * len(recording.pairs)
        faces = _told(recording, count * len(recording.pairs), total)
        compute = partial(stage_ranges, graph, stage, faces, target, method, threads)
        ranges[stage.name] = cached_ranges(path, key, compute)
        for tensor in collapsed(next(iter(ranges[stage.name].values()))):
            logger.warning(f"stage {stage.name}: {tensor} is constant over all faces; its range has collapsed")
    sessions = {s.name: open_session(bundle.model(s), s, None, 1) for s in bundle.manifest.stages}
    return Workshop(bundle.manifest.stages, graphs, ranges, target, sessions, threads)


def _told(recording: Recording, before: int, total: int) -> Iterator[Recorded]:
    """Yield the recorded faces, and say how many of all stages were seen before each."""
    for count, recorded in enumerate(recording):
        pace().at("finding ranges", before + count, total)
        yield recorded


def stage_ranges(
    graph: ModelProto, stage: Stage, faces: Iterable[Recorded], target: Target, method: Calibrator, threads: int
) -> RangeOptions:
    """Return the ranges of all tensors of ``stage`` that could get Q and DQ, over the inputs of recorded ``faces``."""
    inputs = ({name: recorded.tensors[name] for name in stage.inputs} for recorded in faces)
    tensors = placed_tensors(graph, stage.name, target)
    return find_ranges(graph, tensors, inputs, method, RULES[target].symmetric, threads)


def library_versions() -> dict[str, str]:
    """Return the versions that decide what the calibrators and the quantiser give."""
    return {
        "showface": __version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx": version("onnx"),
        "counting": f"{PERCENTILES} {SAMPLE}",
    }
