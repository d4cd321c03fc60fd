"""The whole of ``showface calibrate``: record, find ranges, probe, plan, judge, write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from onnx import ModelProto, load_model_from_string

from showface.export.graph import float_bytes
from showface.runtime.backends.processors import processors
from showface.runtime.bundle import Bundle, as_exported, check_new, open_bundle
from showface.runtime.errors import ShowfaceError

from .bundle import write_int8_bundle
from .pace import pace, paced
from .placement import quantizable
from .planning.candidates import Workshop, library_versions, open_workshop
from .planning.choosing import choose_settings
from .planning.plan import Plan, read_plan
from .planning.search import (
    PLAN_FACES,
    PROBE_FACES,
    QUICK_FACES,
    Budget,
    full_plan,
    new_plan,
    plan_faces,
)
from .planning.sensitivity import Sensitivity
from .planning.speed import Timing
from .planning.verdicts import QualityVerdict, gate_quality, judge_speed, speed_text
from .recording import Recorded, Recording, check_recording, record
from .rewrites.float_graph import float_graph
from .samples import Samples, choose_samples, flat_images
from .settings import Calibrator, Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line gives.

    Attributes:
        bundle: folder of the float bundle; None for the one shipped.
        destination: folder to create.
        images: folder of aligned faces.
        masks: folder of ratio bins, or of masks of the images' stems.
        work: folder of recording and ranges, kept so that an interrupted call goes on.
        method: how the ranges are found.
        target: who will run the result.
        faces: how many set the ranges.
        check_faces: how many judge the result.
        budget: what INT8 may cost.
        plan: file to replay instead of making a plan.
        threads: how many faces run side by side, each on one CPU thread; None for as many as there are processors.
        max_minutes: after which no more is tried: the best plan so far is judged and written.
    """

    bundle: Path | None
    destination: Path
    images: Path
    masks: Path
    work: Path
    method: Calibrator = Calibrator.PERCENTILE
    target: Target = Target.CPU
    faces: int = 256
    check_faces: int = 48
    budget: Budget = field(default_factory=Budget)
    plan: Path | None = None
    threads: int | None = None
    max_minutes: float | None = None


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """What came out.

    Attributes:
        plan: as it was carried out.
        quality: verdict on faces that set no range.
        speed: batch → stage or ``chain`` → timing; empty where this machine cannot run the target.
        sensitivities: figures of stages and groups; empty for a replayed plan.
        size_ratio: bytes of all ONNX files / bytes of their constants as float32.
        checked: the faces that judged, with the float chain's tensors.
        shop: what the variants are made of.
    """

    plan: Plan
    quality: QualityVerdict
    speed: dict[int, dict[str, Timing]]
    sensitivities: tuple[Sensitivity, ...]
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


def calibrate(settings: Settings) -> CalibrationResult:
    """Write the INT8 variant of a bundle.

    Raises:
        UsageError: something given is wrong, or the bundle is quantised already; nothing was written.
        ShowfaceError: no stage stays within the budget; nothing was written.
    """
    with paced(settings.max_minutes):
        return _calibrate(settings)


def _calibrate(settings: Settings) -> CalibrationResult:
    check_new(settings.destination)
    bundle = as_exported(open_bundle(settings.bundle), "INT8 is made from")
    graphs_for = cache(partial(_float_graphs, bundle))
    plan = None
    if settings.plan is not None:
        plan = read_plan(settings.plan, lambda target: _layer_groups(graphs_for(target), target))
    target = settings.target if plan is None else plan.target
    method = settings.method if plan is None else plan.method
    graphs = graphs_for(target)
    samples = choose_samples(settings.images, settings.masks, settings.faces, settings.check_faces)
    quick = plan is None and len(samples.calibration) < QUICK_FACES
    if quick:
        logger.info(
            f"{len(samples.calibration)} faces: a try, in which whole stages are quantised or left in float; "
            f"with {QUICK_FACES} or more their layer groups are"
        )
    threads = settings.threads or processors()
    pace().expect(_durations(samples, quick, plan is not None, _layer_groups(graphs, target)))
    recording, check = _record(settings, bundle, samples, threads)
    logger.debug(f"finding ranges by {method}")
    digest = samples.digest()
    shop = open_workshop(bundle, graphs, recording, digest, target, method, settings.work, threads)
    faces = plan_faces(recording, PROBE_FACES if quick else PLAN_FACES)
    shop = choose_settings(shop, full_plan(shop, method) if plan is None else plan, faces, settings.budget)
    if plan is not None:
        plan = replace(plan, settings=shop.chosen(method))
    checked = tuple(check)
    sensitivities: list[Sensitivity] = []
    if plan is None:
        plan, sensitivities = new_plan(shop, method, faces, checked, settings.budget, quick)
    plan, quality = gate_quality(shop, plan, checked, settings.budget)
    made = {stage: shop.make(stage, plan.quantized(stage)).model for stage in graphs if plan.quantized(stage)}
    if not made:
        raise ShowfaceError(
            f"{settings.destination}: not written, no stage can be quantised within the budget and with a gain; "
            "raise the PSNR drop that is allowed, or choose another method"
        )
    speed = judge_speed(shop, plan, checked) if target is Target.CPU else {}
    size = sum(len(made.get(stage.name) or bundle.model(stage)) for stage in shop.stages)
    ratio = size / sum(float_bytes(load_model_from_string(bundle.model(stage))) for stage in shop.stages)
    outcome = CalibrationResult(plan, quality, speed, tuple(sensitivities), ratio, checked, shop)
    write_int8_bundle(settings.destination, bundle, plan, made, _manifest_record(settings, bundle, samples, outcome))
    return outcome


def _durations(samples: Samples, quick: bool, replayed: bool, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return how long each step takes: seconds of the two cores that docs/deploy/calibration.md names."""
    probed = len(groups) + (0 if quick else sum(map(len, groups.values())))
    faces = PROBE_FACES if quick else PLAN_FACES
    return {
        "recording calibration faces": 0.12 * len(samples.calibration),
        "recording check faces": 0.12 * len(samples.check),
        "finding ranges": 0.2 * len(samples.calibration),
        "choosing settings": 0.0 if replayed else 10.0 + 1.3 * faces,
        "probing": 0.0 if replayed else 0.85 * probed,
        "planning": 0.0 if replayed else 2.1 * faces,
        "judging": 0.06 * len(samples.check),
        "timing": 15.0,
    }


def _float_graphs(bundle: Bundle, target: Target) -> dict[str, ModelProto]:
    return {stage.name: float_graph(bundle.model(stage), stage.name, target) for stage in bundle.manifest.stages}


def _layer_groups(graphs: Mapping[str, ModelProto], target: Target) -> dict[str, list[str]]:
    return {stage: list(quantizable(graph, stage, target)) for stage, graph in graphs.items()}


def _record(settings: Settings, bundle: Bundle, samples: Samples, threads: int) -> tuple[Recording, Recording]:
    """Record both sets of faces, and name those that would spoil the ranges."""
    flat = flat_images([*samples.calibration, *samples.check])
    if flat:
        logger.warning(f"of one colour, from which ranges collapse: {', '.join(flat)}")
    digest = samples.digest()
    recordings = []
    for name, pairs in (("calibration", samples.calibration), ("check", samples.check)):
        logger.debug(f"recording {len(pairs)} {name} faces")
        recordings.append(record(settings.work / name, bundle, pairs, digest, threads))
        check_recording(recordings[-1])
    return recordings[0], recordings[1]


def _manifest_record(
    settings: Settings, bundle: Bundle, samples: Samples, outcome: CalibrationResult
) -> dict[str, Any]:
    """Return what the manifest keeps: where the ranges came from, the plan, and the figures."""
    return {
        "target": str(outcome.plan.target),
        "method": str(outcome.plan.method),
        "settings": {**outcome.shop.settings(), **outcome.shop.chosen(outcome.plan.method)},
        "source": bundle.digest,
        "data": samples.digest(),
        "faces": len(samples.calibration),
        "check_faces": len(samples.check),
        "budget": asdict(settings.budget),
        "plan": {stage: dict(groups) for stage, groups in outcome.plan.stages.items()},
        "versions": library_versions(),
        **outcome.to_dict(),
    }
