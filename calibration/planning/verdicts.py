"""The two verdicts on a plan, quality and speed, and the stages that fail them: left in float, out loud."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from showface.runtime.backends.chain import Session

from ..pace import pace
from ..recording import Recorded
from .candidates import Workshop
from .plan import Plan
from .quality import FaceScores, Quality, quality_of, score_faces
from .search import Budget
from .speed import BATCHES, Timing, compare_stages

logger = logging.getLogger(__name__)

ROUNDS = {1: 9, 8: 3}  # timed pairs by batch


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """Whether a plan is within the budget on faces that set no range.

    Attributes:
        passed: whether it is.
        violated: what it exceeds.
        quality: the figures.
        scores: scores of each face.
    """

    passed: bool
    violated: tuple[str, ...]
    quality: Quality
    scores: tuple[FaceScores, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict and its figures, without those of each face."""
        figures = asdict(self.quality)
        figures["psnr_drop"] = self.quality.psnr_drop
        return {"passed": self.passed, "violated": list(self.violated), **figures}


def judge_quality(
    sessions: Mapping[str, Session], faces: Sequence[Recorded], budget: Budget, threads: int = 1
) -> QualityVerdict:
    """Run a candidate over ``faces``, ``threads`` of them side by side, and hold it against ``budget``."""
    scores: list[FaceScores] = []
    for score in score_faces(sessions, faces, threads):
        pace().at("judging", len(scores), len(faces))
        scores.append(score)
    quality = quality_of(scores)
    violated = tuple(budget.violated(quality))
    return QualityVerdict(not violated, violated, quality, tuple(scores))


def gate_quality(shop: Workshop, plan: Plan, faces: Sequence[Recorded], budget: Budget) -> tuple[Plan, QualityVerdict]:
    """Leave whole stages in float until the rest is within the budget.

    Returns:
        The plan that remains, which may quantise nothing, and its verdict.
    """
    while True:
        verdict = judge_quality(shop.open(plan), faces, budget, shop.threads)
        left = [stage for stage in plan.stages if plan.quantized(stage)]
        if verdict.passed or not left:
            return plan, verdict
        alone = {}
        for stage in left:
            only = {**shop.sessions, stage: shop.open_stage(stage, plan.quantized(stage))}
            alone[stage] = judge_quality(only, faces, budget, shop.threads).quality
        by_labels = verdict.quality.labels < budget.labels
        worst = max(left, key=lambda stage: -alone[stage].labels if by_labels else alone[stage].hole_error)
        logger.info(f"stage {worst} failed the budget, left in float: {'; '.join(verdict.violated)}")
        plan = plan.without(worst, f"the stage failed the budget: {verdict.violated[0]}")


def judge_speed(shop: Workshop, plan: Plan, faces: Sequence[Recorded]) -> dict[int, dict[str, Timing]]:
    """Time stages and chain at each of ``BATCHES``: batch → stage or ``chain`` → timing."""
    sessions = shop.open(plan)
    speed: dict[int, dict[str, Timing]] = {}
    for batch in BATCHES:
        pace().at("timing", len(speed), len(BATCHES))
        speed[batch] = compare_stages(shop.sessions, sessions, faces, batch, ROUNDS[batch])
    return speed


def speed_text(speed: Mapping[int, Mapping[str, Timing]]) -> str:
    """Return the sentence on speed."""
    ratios = {batch: timings["chain"].ratio for batch, timings in speed.items()}
    figures = ", ".join(f"{ratio:.2f}× FP32 at batch {batch}" for batch, ratio in ratios.items()) + ", on one thread"
    if not ratios:
        return "not measured: engines run on a GPU; build them and run showface benchmark there"
    return f"{figures}; INT8 is slower here, do not use it" if min(ratios.values()) < 1.0 else figures
