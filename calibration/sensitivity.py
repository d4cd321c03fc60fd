"""What each stage and each layer group costs when only it is quantised, and the time that it saves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from showface.runtime.errors import ShowfaceError
from showface.runtime.onnxruntime_backend import open_session
from showface.runtime.session import Session
from showface.runtime.stages import Stage

from .placement import Target, quantizable
from .plan import Plan
from .quality import Quality, measure
from .quantize import Range, quantize
from .recording import Recorded
from .speed import compare_stages

TIMED_ROUNDS = 5  # of one layer group; the verdict on the whole is timed longer


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every candidate is made of.

    Attributes:
        stages: of the bundle's variant, in order.
        graphs: float graph of each stage.
        ranges: of each stage's tensors.
        target: who will run the result.
        sessions: of the float bundle, in order.
        threads: for ONNX Runtime.
    """

    stages: tuple[Stage, ...]
    graphs: Mapping[str, ModelProto]
    ranges: Mapping[str, Mapping[str, Range]]
    target: Target
    sessions: Mapping[str, Session]
    threads: int | None

    def groups(self) -> dict[str, list[str]]:
        """Return the layer groups of each stage."""
        return {
            stage.name: list(quantizable(self.graphs[stage.name], stage.name, self.target)) for stage in self.stages
        }

    def graph(self, stage: str, groups: Collection[str]) -> ModelProto:
        """Return the graph of ``stage`` with ``groups`` in 8 bits."""
        return quantize(self.graphs[stage], stage, self.target, groups, self.ranges[stage])

    def open(self, plan: Plan) -> dict[str, Session]:
        """Return the sessions of a plan; the stages that it leaves in float are those of the float bundle."""
        return {stage.name: self.open_stage(stage.name, plan.quantized(stage.name)) for stage in self.stages}

    def open_stage(self, name: str, groups: Collection[str]) -> Session:
        """Return a session of one stage with ``groups`` in 8 bits; the float bundle's own if there are none."""
        if not groups:
            return self.sessions[name]
        session = self.sessions[name]
        return open_session(self.graph(name, groups).SerializeToString(), session.stage, None, self.threads)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What quantising one thing alone does to the chain.

    Attributes:
        stage: of the stage table.
        group: of layers; None for all that the plan quantises in the stage.
        psnr_drop: dB against the ground truth, in the worst bucket.
        hole_psnr: dB against the float chain in the hole, mean.
        hole_error: mean squared difference in the hole, which adds up over groups to a first approximation.
        label_loss: share of pixels whose category changes.
        saved_ms: of a batch of 1 on this machine's CPU; negative where it got slower.
    """

    stage: str
    group: str | None
    psnr_drop: float
    hole_psnr: float
    hole_error: float
    label_loss: float
    saved_ms: float


def probe(
    shop: Workshop, faces: Sequence[Recorded], stage: str, group: str | None, groups: Collection[str]
) -> Sensitivity:
    """Quantise ``groups`` of ``stage`` alone, run the chain from there on, and compare."""
    session = shop.open_stage(stage, groups)
    candidate = {**shop.sessions, stage: session}
    quality = measure(candidate, faces, stage)
    single = {stage: shop.sessions[stage]}
    timing = compare_stages(single, {stage: session}, faces, 1, TIMED_ROUNDS)[stage]
    return Sensitivity(
        stage,
        group,
        quality.psnr_drop,
        quality.hole_psnr,
        quality.hole_error,
        1.0 - quality.labels,
        timing.float_ms * (1.0 - 1.0 / timing.ratio),
    )


def probe_all(shop: Workshop, plan: Plan, faces: Sequence[Recorded], step: Callable[[str], None]) -> list[Sensitivity]:
    """Probe every stage of ``plan`` as a whole, then each group that it quantises alone."""
    found = []
    for stage in shop.groups():
        groups = plan.quantized(stage)
        if not groups:
            continue
        step(stage)
        found.append(probe(shop, faces, stage, None, groups))
        for group in groups:
            step(f"{stage} {group}")
            found.append(probe(shop, faces, stage, group, [group]))
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    """What INT8 may cost.

    Attributes:
        psnr_drop: dB against the ground truth, in the worst bucket.
        hole_psnr: least mean PSNR against the float chain in the hole, dB.
        labels: least share of equal categories.
    """

    psnr_drop: float = 0.1
    hole_psnr: float = 34.0
    labels: float = 0.985

    def violated(self, quality: Quality) -> list[str]:
        """Return what ``quality`` exceeds, as texts; nothing if it is within the budget."""
        bounds = (
            (
                quality.psnr_drop <= self.psnr_drop,
                f"PSNR falls by {quality.psnr_drop:.3f} dB (at most {self.psnr_drop})",
            ),
            (
                quality.hole_psnr >= self.hole_psnr,
                f"{quality.hole_psnr:.1f} dB in the hole (at least {self.hole_psnr})",
            ),
            (quality.labels >= self.labels, f"{quality.labels:.2%} equal labels (at least {self.labels:.2%})"),
        )
        return [text for kept, text in bounds if not kept]


def make_plan(
    shop: Workshop,
    plan: Plan,
    found: Sequence[Sensitivity],
    faces: Sequence[Recorded],
    budget: Budget,
    step: Callable[[str], None],
) -> Plan:
    """Leave groups in float, the costliest for its time first, until the chain is within ``budget``.

    Raises:
        ShowfaceError: even the float chain is outside the budget, which then cannot be met.
    """
    single = {(item.stage, item.group): item for item in found}
    while True:
        quality = measure(shop.open(plan), faces)
        violated = budget.violated(quality)
        if not violated:
            return plan
        step(f"plan: {violated[0]}")
        left = [(stage, group) for stage in plan.stages for group in plan.quantized(stage)]
        if not left:
            raise ShowfaceError(f"the budget cannot be met, not even in float: {'; '.join(violated)}")
        by_labels = quality.labels < budget.labels
        stage, group = max(left, key=lambda key: _cost(single.get(key), by_labels))
        item = single.get((stage, group))
        alone = "" if item is None else f"; alone {item.psnr_drop:+.3f} dB, {item.hole_psnr:.1f} dB in the hole"
        plan = plan.without(stage, f"{violated[0]}{alone}", group)


def _cost(item: Sensitivity | None, by_labels: bool) -> float:
    """Return what a group costs for each millisecond that it saves; one that was not probed goes first."""
    if item is None:
        return float("inf")
    return (item.label_loss if by_labels else item.hole_error) / max(item.saved_ms, 0.05)
