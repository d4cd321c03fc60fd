"""The whole of ``showface calibrate``: record, find ranges, probe, plan, judge, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import ModelProto

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.onnxruntime_backend import open_session
from showface.runtime.stages import Stage
from showface.training.pairs import BUCKETS

from .bundle import check_new, write_bundle
from .graphs import float_bytes, float_graph
from .placement import RULES, Target, default_float, placed_tensors, quantizable
from .plan import INT8, Plan, read_plan
from .quantize import Range
from .ranges import PERCENTILE, Method, cached_ranges, collapsed, find_ranges
from .recording import Recorded, Recording, check_recording, record
from .samples import choose_samples, flat_images
from .sensitivity import Budget, Sensitivity, Workshop, make_plan, probe_all
from .speed import Timing
from .verdicts import QualityVerdict, drop_slow_stages, gate_quality, judge_speed, speed_text

PROBE_FACES = 6  # two a bucket: every layer group runs the chain over them
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line gives.

    Attributes:
        bundle: folder of the float bundle; None for the one shipped.
        destination: folder to create.
        images: folder of aligned faces.
        masks: folder of ratio bins, or of masks of the images' stems.
        work: folder of recording and ranges, kept so that an interrupted call goes on.
        method: that finds the ranges.
        target: who will run the result.
        faces: how many set the ranges.
        check_faces: how many judge the result.
        budget: what INT8 may cost.
        plan: file to replay instead of making a plan.
        threads: for ONNX Runtime.
    """

    bundle: Path | None
    destination: Path
    images: Path
    masks: Path
    work: Path
    method: Method = Method.MINMAX
    target: Target = Target.CPU
    faces: int = 256
    check_faces: int = 24
    budget: Budget = field(default_factory=Budget)
    plan: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out.

    Attributes:
        plan: as it was carried out.
        quality: verdict on faces that set no range.
        speed: batch → stage or ``chain`` → timing; empty where this machine cannot run the target.
        sensitivities: of stages and groups; empty for a replayed plan.
        ranges: of each stage's tensors.
        size_ratio: bytes of all ONNX files / bytes of their constants as float32.
        checked: the faces that judged, with the float chain's tensors.
        shop: what the variants are made of.
    """

    plan: Plan
    quality: QualityVerdict
    speed: dict[int, dict[str, Timing]]
    sensitivities: tuple[Sensitivity, ...]
    ranges: dict[str, dict[str, Range]]
    size_ratio: float
    checked: tuple[Recorded, ...]
    shop: Workshop

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, of JSON's types."""
        return {
            "quality": self.quality.to_dict(),
            "speed": {str(b): {name: asdict(t) for name, t in timings.items()} for b, timings in self.speed.items()},
            "speed_verdict": speed_text(self.speed),
            "size_ratio": self.size_ratio,
            "sensitivity": [asdict(item) for item in self.sensitivities],
        }


def calibrate(settings: Settings, say: Say, step: Say) -> Outcome:
    """Write the INT8 variant of a bundle.

    Args:
        settings: see there.
        say: is told what the user must know.
        step: is told what goes on.

    Raises:
        UsageError: something given is wrong, or the bundle is quantised already; nothing was written.
        ShowfaceError: no stage stays within the budget; nothing was written.
    """
    check_new(settings.destination)
    bundle = open_bundle(settings.bundle)
    quantized = [stage for stage, precision in bundle.manifest.precision.items() if precision == INT8]
    if quantized:
        raise UsageError(f"{bundle.folder}: {', '.join(quantized)} are in INT8 already; calibrate the float bundle")
    graphs = {stage.name: float_graph(bundle.model(stage), stage.name) for stage in bundle.manifest.stages}
    plan = None
    if settings.plan is not None:
        plan = read_plan(settings.plan, lambda target: {s: list(quantizable(g, s, target)) for s, g in graphs.items()})
    target = settings.target if plan is None else plan.target
    method = settings.method if plan is None else plan.method
    samples = choose_samples(settings.images, settings.masks, settings.faces, settings.check_faces)
    flat = flat_images([*samples.calibration, *samples.check])
    if flat:
        say(f"warning: of one colour, from which ranges collapse: {', '.join(flat)}")
    digest = samples.digest()
    recordings = []
    for name, pairs in (("calibration", samples.calibration), ("check", samples.check)):
        step(f"recording {len(pairs)} {name} faces")
        recordings.append(record(settings.work / name, bundle, pairs, digest, settings.threads, say))
        check_recording(recordings[-1], say)
    ranges = {}
    for stage in bundle.manifest.stages:
        step(f"ranges of {stage.name} by {method}")
        path = settings.work / f"ranges-{target}-{method}-{stage.name}.json"
        key = {**_key(bundle.model(stage), digest, method, target), "faces": len(samples.calibration)}
        graph = graphs[stage.name]
        ranges[stage.name] = cached_ranges(
            path, key, partial(_find, graph, stage, recordings[0], method, target, settings.threads), say
        )
        for tensor in collapsed(ranges[stage.name]):
            say(f"warning: stage {stage.name}: {tensor} is constant over all faces; its range has collapsed")
    sessions = {s.name: open_session(bundle.model(s), s, None, settings.threads) for s in bundle.manifest.stages}
    shop = Workshop(bundle.manifest.stages, graphs, ranges, target, sessions, settings.threads)
    checked = tuple(recordings[1])
    sensitivities: list[Sensitivity] = []
    if plan is None:
        plan, sensitivities = _new_plan(shop, method, recordings[0], settings.budget, say, step)
    step("judging quality")
    plan, quality = gate_quality(shop, plan, checked, settings.budget, say)
    kept = [stage for stage in graphs if plan.quantized(stage)]
    if not kept:
        raise ShowfaceError(
            f"no stage can be quantised within the budget and faster than in float; nothing was written. "
            f"Last figures: PSNR drop {quality.quality.psnr_drop:.3f} dB, {quality.quality.labels:.2%} equal labels"
        )
    step("measuring speed")
    speed = judge_speed(shop, plan, checked) if target is Target.CPU else {}
    made = {stage: shop.graph(stage, plan.quantized(stage)) for stage in kept}
    size = sum(len(made[s.name].SerializeToString()) if s.name in made else len(bundle.model(s)) for s in shop.stages)
    ratio = size / sum(map(float_bytes, graphs.values()))
    outcome = Outcome(plan, quality, speed, tuple(sensitivities), ranges, ratio, checked, shop)
    record_ = {
        "target": str(target),
        "method": str(method),
        "source": bundle.digest,
        "data": digest,
        "faces": len(samples.calibration),
        "check_faces": len(samples.check),
        "budget": asdict(settings.budget),
        "plan": {stage: dict(groups) for stage, groups in plan.stages.items()},
        "versions": _versions(),
        **outcome.to_dict(),
    }
    write_bundle(settings.destination, bundle, plan, made, record_)
    return outcome


def _find(
    graph: ModelProto, stage: Stage, recording: Recording, method: Method, target: Target, threads: int | None
) -> dict[str, Range]:
    tensors = placed_tensors(graph, stage.name, target)
    inputs = ({name: recorded.tensors[name] for name in stage.inputs} for recorded in recording)
    return find_ranges(graph, tensors, inputs, method, RULES[target].symmetric, threads)


def _key(model: bytes, data: str, method: Method, target: Target) -> dict[str, Any]:
    """Return all that decides the ranges of a stage."""
    digest = hashlib.sha256(model).hexdigest()
    return {"onnx": digest, "data": data, "method": str(method), "target": str(target), "versions": _versions()}


def _versions() -> dict[str, str]:
    return {"onnxruntime": onnxruntime.__version__, "onnx": version("onnx"), "percentile": str(PERCENTILE)}


def _new_plan(
    shop: Workshop, method: Method, recording: Recording, budget: Budget, say: Say, step: Say
) -> tuple[Plan, list[Sensitivity]]:
    """Probe everything that the rules allow, and leave in float what costs too much or saves nothing."""
    stages = {}
    for stage, groups in shop.groups().items():
        kept = default_float(shop.graphs[stage], stage, shop.target)
        stages[stage] = {group: f"float: {kept[group]}" if group in kept else INT8 for group in groups}
    faces = _probe_faces(recording)
    full = Plan(shop.target, method, stages)
    found = probe_all(shop, full, faces, lambda name: step(f"probing {name}"))
    plan = make_plan(shop, full, found, faces, budget, step)
    if shop.target is Target.CPU:
        step("timing stages")
        plan = drop_slow_stages(shop, plan, faces, say)
    return plan, found


def _probe_faces(recording: Recording) -> list[Recorded]:
    """Return the first faces of each bucket that has a hole; few, for they stay in memory."""
    chosen: list[Recorded] = []
    count = dict.fromkeys(BUCKETS, 0)
    for recorded in recording:
        if count[recorded.face.bucket] < PROBE_FACES // len(BUCKETS) and recorded.face.hole.any():
            count[recorded.face.bucket] += 1
            chosen.append(recorded)
    return chosen
