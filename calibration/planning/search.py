"""Make a plan within the quality budget: leave in float what costs too much, or saves nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from showface.evaluation.faces import BUCKETS
from showface.runtime.errors import ShowfaceError

from ..pace import pace
from ..placement import default_float
from ..recording import Recorded, Recording
from ..settings import Calibrator
from .candidates import Workshop
from .plan import INT8, Plan
from .quality import Estimate, Quality, from_psnr, to_psnr
from .sensitivity import Sensitivity, probe_all
from .trials import Trials

logger = logging.getLogger(__name__)

PLAN_FACES = 30  # that settle settings and plan; one in ten goes far out of the usual ranges
QUICK_FACES = 30  # fewer of them to set the ranges are a try: whole stages are quantised, or none of their groups
PROBE_FACES = 3  # one a bucket: every layer group runs the chain over them, only to be ranked
BUDGET_MARGIN = 0.9  # of the budget: what a plan may use on its own faces
RETURNS = 12  # groups that may go back to 8 bits, by what they save
LEAST_MS = 1.0  # less is noise, and not worth keeping a costly group for

Key = tuple[str, str | None]  # stage and layer group; without a group all that the plan quantises in the stage


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

    def tightened(self, share: float) -> Budget:
        """Return the budget of which a plan may use ``share``, so that it holds on faces which it has not seen."""
        return Budget(
            self.psnr_drop * (share if self.psnr_drop > 0 else 1 / share),
            to_psnr(from_psnr(self.hole_psnr) * share),
            1.0 - (1.0 - self.labels) * share,
        )

    def lowered(self, allowed: Budget, own: Estimate, judged: Quality) -> Budget:
        """Return what the next plan may use on its own faces, so that it keeps this budget on those that judge.

        Args:
            allowed: what the last plan was allowed on its own faces.
            own: what it cost there.
            judged: what it cost on the faces that judge; each bound that it broke is lowered in proportion.
        """

        def bound(limit: float, allowed: float, own: float, judged: float) -> float:
            return min(allowed, BUDGET_MARGIN * limit * max(own, 0.0) / judged) if judged > max(limit, 0.0) else allowed

        errors = (from_psnr(figure) for figure in (self.hole_psnr, allowed.hole_psnr, own.hole_psnr, judged.hole_psnr))
        losses = (1.0 - figure for figure in (self.labels, allowed.labels, own.labels, judged.labels))
        return Budget(
            bound(self.psnr_drop, allowed.psnr_drop, own.psnr_drop, judged.psnr_drop),
            to_psnr(bound(*errors)),
            1.0 - bound(*losses),
        )

    def shares(self, psnr_drop: float, hole_error: float, label_loss: float) -> tuple[float, float, float]:
        """Return how much of each of the three bounds is used; above 1 it is broken."""
        return (
            max(psnr_drop, 0.0) / max(self.psnr_drop, 1e-6),
            hole_error / from_psnr(self.hole_psnr),
            label_loss / max(1.0 - self.labels, 1e-6),
        )

    def used(self, psnr_drop: float, hole_error: float, label_loss: float) -> float:
        """Return how much of the budget is used, the shares of the three bounds added up; 0 to 3 within the budget."""
        return sum(self.shares(psnr_drop, hole_error, label_loss))

    def violated(self, quality: Quality | Estimate) -> list[str]:
        """Return what ``quality`` exceeds, as texts; nothing if it is within the budget."""
        texts = []
        if quality.psnr_drop > self.psnr_drop:
            texts.append(f"PSNR falls by {quality.psnr_drop:.3f} dB (at most {self.psnr_drop:.3g})")
        if quality.hole_psnr < self.hole_psnr:
            texts.append(f"{quality.hole_psnr:.1f} dB in the hole (at least {self.hole_psnr:.1f})")
        if quality.labels < self.labels:
            texts.append(f"{quality.labels:.2%} equal labels (at least {self.labels:.2%})")
        return texts


@dataclass(frozen=True, slots=True)
class Ranking:
    """What may go back to float, the costliest for what it saves first.

    Attributes:
        plan: quantises all of it.
        order: stages and their layer groups; a stage of which not every group was probed counts as one group, None.
        found: what was found out about each group that was probed.
        gains: what each of them saves.
    """

    plan: Plan
    order: tuple[Key, ...]
    found: Mapping[Key, Sensitivity]
    gains: Mapping[Key, float]

    @classmethod
    def of(cls, plan: Plan, found: Sequence[Sensitivity], budget: Budget) -> Ranking:
        """Rank what ``plan`` quantises."""
        single = {(item.stage, item.group): item for item in found}
        every: list[Key] = []
        for stage in plan.stages:
            groups: list[Key] = [(stage, group) for group in plan.quantized(stage)]
            if groups:
                every += groups if all(key in single for key in groups) else [(stage, None)]
        gains = gains_of(single[key] for key in every if key in single)
        costs = {key: cost_of(single[key], gains[key], budget) for key in gains}
        return cls(plan, tuple(sorted(every, key=lambda key: -costs.get(key, math.inf))), single, gains)

    def leaving(self, groups: Mapping[Key, str] | Iterable[Key]) -> Plan:
        """Return the plan that leaves ``groups`` in float, each for its reason where they have some."""
        left, reasons = self.plan, groups if isinstance(groups, Mapping) else {}
        for stage, group in groups:
            item = self.found.get((stage, group))
            alone = "" if item is None else f"; alone {item.psnr_drop:+.3f} dB, {item.hole_psnr:.1f} dB in the hole"
            left = left.without(stage, f"{reasons.get((stage, group), '')}{alone}", group)
        return left


def choose_groups(trials: Trials, ranking: Ranking, budget: Budget) -> dict[Key, str]:
    """Return the fewest groups, in the order of their rank, without which the chain keeps ``budget``, and why.

    Their number is found by halving; those that were left in float for nothing then go back to 8 bits.

    Raises:
        ShowfaceError: even the float chain is outside the budget, which then cannot be met.
    """

    def violated(groups: Iterable[Key]) -> list[str]:
        return budget.violated(trials.estimate(ranking.leaving(groups)))

    ranked = ranking.order
    if not (first := violated([])):
        return {}
    logger.debug(f"plan: {first[0]}")
    if float_fails := violated(ranked):
        raise ShowfaceError(f"the budget cannot be met, not even in float: {'; '.join(float_fails)}")
    low, high = 0, len(ranked)  # the first are too few, the others enough
    returns = 0 if pace().late else min(RETURNS, len(ranked))
    halvings = len(ranked).bit_length()
    for step in range(halvings):  # also where the time is up: without them nothing would be quantised
        if high - low <= 1:
            break
        pace().at("planning", step, halvings + returns)
        middle = (low + high) // 2
        low, high = (middle, high) if violated(ranked[:middle]) else (low, middle)
    chosen = list(ranked[:high])
    logger.debug(f"plan: {high} of {len(ranked)} groups in float keep the budget")
    for step, key in enumerate(sorted(reversed(chosen), key=lambda key: -ranking.gains.get(key, 0.0))[:returns]):
        pace().at("planning", halvings + step, halvings + returns)
        if pace().late:
            break
        fewer = [other for other in chosen if other != key]
        if not violated(fewer):
            chosen = fewer
    return dict.fromkeys(chosen, first[0])


def hold_on_others(trials: Trials, ranking: Ranking, chosen: Mapping[Key, str], budget: Budget) -> Plan:
    """Return the plan that leaves ``chosen`` in float, and with them as many more as the faces of ``trials`` need.

    These are faces on which it was not made. The groups that follow are ordered by how much of the broken bounds they
    use for what they save. How many are needed is found by doubling, then by bisection.
    """
    judged = trials.judge(ranking.leaving(chosen))
    if not (violated := budget.violated(judged)) or pace().late:
        return ranking.leaving(chosen)
    used = budget.shares(judged.psnr_drop, from_psnr(judged.hole_psnr), 1.0 - judged.labels)
    broken = [share > 1.0 for share in used]

    def weight(key: Key) -> float:
        item = ranking.found.get(key)
        if item is None or key not in ranking.gains:
            return math.inf
        shares = budget.shares(item.psnr_drop, from_psnr(item.hole_psnr), item.label_loss)
        return sum(share for share, counts in zip(shares, broken, strict=True) if counts) / ranking.gains[key]

    rest = sorted((key for key in ranking.order if key not in chosen), key=lambda key: -weight(key))

    def more(count: int) -> Plan:
        return ranking.leaving({**chosen, **dict.fromkeys(rest[:count], f"{violated[0]} on faces that judge")})

    def holds(count: int) -> bool:
        pace().at("planning", count, len(rest))
        logger.debug(f"plan: {violated[0]} on faces that it was not made on; {count} more groups in float")
        return not budget.violated(trials.judge(more(count)))

    low, high = 0, 1  # the first is too few, the other is tried
    while high < len(rest) and not holds(high):
        low, high = high, min(2 * high, len(rest))
    while high - low > 1:  # also where the time is up: without it all could stay in float
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return more(high)


def gains_of(found: Iterable[Sensitivity]) -> dict[Key, float]:
    """Return what each group saves: its share of the time and its share of the weights that all groups save, added."""
    groups = {(item.stage, item.group): item for item in found}
    times = {key: max(item.saved_ms, LEAST_MS) for key, item in groups.items()}
    time, weights = sum(times.values()), max(1, sum(item.weights for item in groups.values()))
    return {key: times[key] / time + item.weights / weights for key, item in groups.items()}


def cost_of(item: Sensitivity, gain: float, budget: Budget) -> float:
    """Return how much of the budget a group uses, on a typical face, for what it saves."""
    return budget.used(item.psnr_drop, from_psnr(item.hole_psnr), item.label_loss) / gain


def full_plan(shop: Workshop, method: Calibrator) -> Plan:
    """Return the plan that quantises all that the rules allow."""
    stages = {}
    for stage, groups in shop.groups().items():
        kept = default_float(shop.graphs[stage], stage, shop.target)
        stages[stage] = {group: f"float: {kept[group]}" if group in kept else INT8 for group in groups}
    return Plan(shop.target, method, stages)


def new_plan(
    shop: Workshop,
    method: Calibrator,
    faces: Sequence[Recorded],
    checked: Sequence[Recorded],
    budget: Budget,
    quick: bool = False,
) -> tuple[Plan, list[Sensitivity]]:
    """Probe all that the rules allow on a few of ``faces``, and leave groups in float until ``budget`` is kept.

    A stage that 8 bits make slower on this CPU stays in float. The plan is made on ``faces``, of most of the budget;
    where it breaks the budget on ``checked``, once more of less, and then more groups are left in float. A ``quick``
    one quantises whole stages, and is made, as where the time is up, on those few faces.
    """
    full = replace(full_plan(shop, method), settings=shop.chosen(method))
    few = spread_over_buckets(faces, PROBE_FACES)
    found = probe_all(shop, full, few, quick)
    for item in found:
        if item.group is None and item.saved_ms < 0.0:
            logger.info(f"stage {item.stage}: INT8 is slower here by {-item.saved_ms:.1f} ms, left in float")
            full = full.without(item.stage, f"INT8 is slower here by {-item.saved_ms:.1f} ms")
    ranking = Ranking.of(full, found, budget)
    trials, others = Trials(shop, few if quick or pace().late else faces), Trials(shop, checked)
    allowed = budget.tightened(BUDGET_MARGIN)
    chosen = choose_groups(trials, ranking, allowed)
    plan = ranking.leaving(chosen)
    judged = others.judge(plan)
    if (violated := budget.violated(judged)) and not pace().late:
        logger.debug(f"plan: {violated[0]} on faces that it was not made on; it is made anew")
        chosen = choose_groups(trials, ranking, budget.lowered(allowed, trials.estimate(plan), judged))
    return hold_on_others(others, ranking, chosen, budget), found


def plan_faces(recording: Recording, count: int) -> list[Recorded]:
    """Return the first ``count`` faces that have a hole, as many of each bucket; few, for they stay in memory."""
    return spread_over_buckets((recorded for recorded in recording if recorded.face.hole.any()), count)


def spread_over_buckets(faces: Iterable[Recorded], count: int) -> list[Recorded]:
    """Return the first of ``faces``, ``count`` in all, as many of each bucket."""
    chosen: list[Recorded] = []
    taken = dict.fromkeys(BUCKETS, 0)
    for recorded in faces:
        if len(chosen) == count:
            break
        if taken[recorded.face.bucket] < count // len(BUCKETS):
            taken[recorded.face.bucket] += 1
            chosen.append(recorded)
    return chosen
