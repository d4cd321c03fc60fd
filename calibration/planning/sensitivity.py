"""What each stage and each layer group costs when only it is quantised, and the time that it saves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..pace import pace
from ..recording import Recorded
from ..settings import Target
from .candidates import Workshop
from .plan import Plan
from .quality import estimate
from .speed import compare_sessions

logger = logging.getLogger(__name__)

STAGE_ROUNDS = 9  # timed, of a stage as a whole, which decides whether it stays in float
GROUP_ROUNDS = 2  # of one layer group, which is only ranked


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What quantising one thing alone does to the chain.

    Attributes:
        stage: its name in the stage table.
        group: of layers; None for all that the plan quantises in the stage.
        psnr_drop: dB against the ground truth that a typical face of the worst bucket loses; see
            :class:`~.quality.Estimate`.
        hole_psnr: dB against the float chain in the hole, mean.
        hole_error: mean squared difference in the hole, which adds up over groups to a first approximation.
        label_loss: share of pixels whose category changes.
        saved_ms: of a batch of 1 on this machine's CPU, negative where it got slower; 0 for another target.
        weights: how many it brings into 8 bits.
    """

    stage: str
    group: str | None
    psnr_drop: float
    hole_psnr: float
    hole_error: float
    label_loss: float
    saved_ms: float
    weights: int


def probe(
    shop: Workshop, faces: Sequence[Recorded], stage: str, group: str | None, groups: Collection[str]
) -> Sensitivity:
    """Quantise ``groups`` of ``stage`` alone, run the chain from there on, and compare."""
    session = shop.open_stage(stage, groups)
    candidate = {**shop.sessions, stage: session}
    quality = estimate(candidate, faces, stage, shop.threads)
    saved = 0.0
    if shop.target is Target.CPU:  # elsewhere the time of this CPU says nothing
        rounds = STAGE_ROUNDS if group is None else GROUP_ROUNDS
        timing = compare_sessions(shop.sessions[stage], session, faces[0].tensors, rounds)
        saved = timing.float_ms * (1.0 - 1.0 / timing.ratio)
    return Sensitivity(
        stage,
        group,
        quality.typical_drop,
        quality.hole_psnr,
        quality.hole_error,
        1.0 - quality.labels,
        saved,
        shop.weights(stage, groups),
    )


def probe_all(shop: Workshop, plan: Plan, faces: Sequence[Recorded], quick: bool = False) -> list[Sensitivity]:
    """Probe every stage of ``plan`` as a whole, then, unless ``quick``, each of its groups, until the time is up."""
    found: list[Sensitivity] = []
    stages = [stage for stage in shop.groups() if plan.quantized(stage)]
    wanted: list[tuple[str, str | None]] = [(stage, None) for stage in stages]
    if not quick:
        wanted += [(stage, group) for stage in stages for group in plan.quantized(stage)]
    for stage, group in wanted:
        pace().at("probing", len(found), len(wanted))
        if group is not None and pace().late:
            logger.info(
                f"the time is up: {len(found) - len(stages)} of {len(wanted) - len(stages)} layer groups were probed; "
                "stages with others are quantised, or left in float, as a whole"
            )
            break
        logger.debug(f"probing {stage} {group or ''}")
        found.append(probe(shop, faces, stage, group, plan.quantized(stage) if group is None else [group]))
    return found
