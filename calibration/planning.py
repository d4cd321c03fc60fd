"""Make a plan within the quality budget: leave in float what costs too much, or saves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from showface.runtime.errors import ShowfaceError
from showface.training.pairs import BUCKETS

from .placement import default_float
from .plan import INT8, Plan
from .quality import Quality, measure
from .ranges import Method
from .recording import Recorded, Recording
from .sensitivity import Sensitivity, probe_all
from .workshop import Workshop

PROBE_FACES = 6  # two a bucket: every layer group runs the chain over them


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
    """Leave groups in float, the costliest for the time it saves first, until the chain is within ``budget``.

    Raises:
        ShowfaceError: even the float chain is outside the budget, which then cannot be met.
    """
    single = {(item.stage, item.group): item for item in found}
    sessions = shop.open(plan)
    while True:
        quality = measure(sessions, faces)
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
        sessions = {**sessions, stage: shop.open_stage(stage, plan.quantized(stage))}


def _cost(item: Sensitivity | None, by_labels: bool) -> float:
    """Return what a group costs for each millisecond that it saves; one that was not probed goes first."""
    if item is None:
        return float("inf")
    return (item.label_loss if by_labels else item.hole_error) / max(item.saved_ms, 0.05)


def full_plan(shop: Workshop, method: Method) -> Plan:
    """Return the plan that quantises all that the rules allow."""
    stages = {}
    for stage, groups in shop.groups().items():
        kept = default_float(shop.graphs[stage], stage, shop.target)
        stages[stage] = {group: f"float: {kept[group]}" if group in kept else INT8 for group in groups}
    return Plan(shop.target, method, stages)


def choose_settings(shop: Workshop, method: Method, faces: Sequence[Recorded], step: Callable[[str], None]) -> Workshop:
    """Return the workshop in which each stage has the setting that changes the fewest labels, then the hole least."""
    full = full_plan(shop, method)
    for stage, options in shop.ranges.items():
        if len(options) < 2 or not full.quantized(stage):
            continue
        costs = {}
        for setting in options:
            session = shop.with_setting(stage, setting).open_stage(stage, full.quantized(stage))
            quality = measure({**shop.sessions, stage: session}, faces, stage)
            costs[setting] = (-quality.labels, quality.hole_error)
        best = min(costs, key=lambda setting: costs[setting])
        step(f"{stage}: {method} {best}")
        shop = shop.with_setting(stage, best)
    return shop


def new_plan(
    shop: Workshop, method: Method, faces: Sequence[Recorded], budget: Budget, step: Callable[[str], None]
) -> tuple[Plan, list[Sensitivity]]:
    """Probe all that the rules allow on a few ``faces``, and leave groups in float until ``budget`` is kept."""
    full = full_plan(shop, method)
    found = probe_all(shop, full, faces, lambda name: step(f"probing {name}"))
    return make_plan(shop, full, found, faces, budget, step), found


def probe_faces(recording: Recording) -> list[Recorded]:
    """Return the first faces of each bucket that has a hole; few, for they stay in memory."""
    chosen: list[Recorded] = []
    count = dict.fromkeys(BUCKETS, 0)
    for recorded in recording:
        if count[recorded.face.bucket] < PROBE_FACES // len(BUCKETS) and recorded.face.hole.any():
            count[recorded.face.bucket] += 1
            chosen.append(recorded)
    return chosen
