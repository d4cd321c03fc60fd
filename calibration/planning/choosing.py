"""Which setting of the method sets the ranges: of each stage, and of the groups of a stage that costs too much."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from showface.runtime.stages import COARSE_IMAGE

from ..pace import pace
from ..parallel import parallel
from ..recording import Recorded
from .candidates import Workshop
from .plan import Plan, exception_key
from .quality import FaceLoss, estimate, estimate_of, loss_of, run_stages
from .search import Budget, spread_over_buckets

logger = logging.getLogger(__name__)

SETTING_FACES = 12  # that settle the setting of a stage
GROUP_FACES = 12  # that settle those of its layer groups
COSTLY = 0.5  # of the budget, in shares added up: from here on each group of a stage gets a setting of its own
LEAST_GAIN = 0.002  # of the budget: less is chance


def choose_settings(shop: Workshop, plan: Plan, faces: Sequence[Recorded], budget: Budget) -> Workshop:
    """Return the workshop in which each stage has its setting of the plan's method.

    It is the one that ``plan`` names, else the one that uses the least of ``budget`` when what ``plan`` quantises is.
    Where that is much of it and the stage gives a picture, its layer groups are gone through from the last one to the
    first: what an encoder clips is missed everywhere, while a decoder's largest values are few pixels at the border of
    a hole, which all others pay for with coarser steps.
    """
    faces = spread_over_buckets(faces, SETTING_FACES)
    for count, (stage, options) in enumerate(shop.ranges.items()):
        pace().at("choosing settings", count, len(shop.ranges))
        if stage in plan.settings:
            shop = _as_given(shop, stage, plan)
            continue
        if len(options) < 2 or not plan.quantized(stage) or pace().late:
            continue
        costs = {setting: _cost(shop.with_setting(stage, setting), plan, stage, faces, budget) for setting in options}
        best = min(costs, key=lambda setting: costs[setting])
        logger.debug(f"{stage}: {plan.method} {best}")
        shop = shop.with_setting(stage, best)
        if costs[best] > COSTLY and COARSE_IMAGE in shop.sessions[stage].stage.outputs:
            shop = _choose_for_groups(shop, plan, stage, spread_over_buckets(faces, GROUP_FACES), budget)
    return shop


def _as_given(shop: Workshop, stage: str, plan: Plan) -> Workshop:
    shop = shop.with_setting(stage, plan.settings[stage])
    for group in plan.stages[stage]:
        if (key := exception_key(stage, group)) in plan.settings:
            shop = shop.with_exception(stage, group, plan.settings[key])
    return shop


def _choose_for_groups(shop: Workshop, plan: Plan, stage: str, faces: Sequence[Recorded], budget: Budget) -> Workshop:
    """Give each layer group of ``stage`` the setting under which the picture of the whole stage uses the least.

    The neighbours of a group's setting are tried, and on from one that is better; the chain behind is not run.
    """
    options = sorted(shop.ranges[stage], key=float)
    least = _cost(shop, plan, stage, faces, budget, alone=True)
    for group in reversed(plan.quantized(stage)):
        for step in (-1, 1):
            place = options.index(shop.exceptions.get(stage, {}).get(group, shop.settings()[stage])) + step
            while 0 <= place < len(options) and not pace().late:
                other = shop.with_exception(stage, group, options[place])
                cost = _cost(other, plan, stage, faces, budget, alone=True)
                if cost > least - LEAST_GAIN:
                    break
                shop, least, place = other, cost, place + step
    for group, setting in shop.exceptions.get(stage, {}).items():
        logger.debug(f"{stage} {group}: {plan.method} {setting}")
    return shop


def _cost(
    shop: Workshop, plan: Plan, stage: str, faces: Sequence[Recorded], budget: Budget, alone: bool = False
) -> float:
    """Return how much of the budget what ``plan`` quantises in ``stage`` uses; ``alone``, without the chain behind."""
    session = shop.open_stage(stage, plan.quantized(stage))

    def loss(face: Recorded) -> FaceLoss:
        return loss_of(face, run_stages([session], face.tensors), COARSE_IMAGE)

    if alone:
        found = estimate_of(list(parallel(loss, faces, shop.threads)))
    else:
        found = estimate({**shop.sessions, stage: session}, faces, stage, shop.threads)
    return budget.used(found.psnr_drop, found.hole_error, 1.0 - found.labels)
