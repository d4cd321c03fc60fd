"""Trials of plans on some faces: none is tried twice, and no stage runs before the first that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from showface.runtime.stages import CHAIN_OUTPUT

from ..parallel import parallel
from ..recording import Recorded
from .candidates import Workshop
from .plan import Plan
from .quality import Estimate, Quality, estimate_of, loss_of, quality_of, run_stages, score_recorded

ChosenGroups = tuple[tuple[str, ...], ...]  # the layer groups in 8 bits of each stage, in order


class Trials:
    """What plans cost on the same faces, one plan after the other.

    Most plans of a search differ from the last one in a few stages: the outputs of those before the first that
    differs are kept, about 4 MB a face.

    Args:
        shop: what the stages are made of.
        faces: that every plan is tried on.
    """

    def __init__(self, shop: Workshop, faces: Sequence[Recorded]) -> None:
        self.shop, self.faces = shop, faces
        self._last: ChosenGroups = ((),) * len(shop.stages)  # in float, as it was recorded
        self._tensors: list[dict[str, NDArray[Any]]] = [dict(face.tensors) for face in faces]
        self._known: dict[ChosenGroups, Estimate] = {}
        self._judged: dict[ChosenGroups, Quality] = {}

    def estimate(self, plan: Plan) -> Estimate:
        """Return what ``plan`` is likely to cost other faces."""
        groups = self._groups(plan)
        if groups not in self._known:
            pairs = zip(self.faces, self._run(groups), strict=True)
            losses = parallel(lambda pair: loss_of(*pair, CHAIN_OUTPUT), pairs, self.shop.threads)
            self._known[groups] = estimate_of(list(losses))
        return self._known[groups]

    def judge(self, plan: Plan) -> Quality:
        """Return what ``plan`` costs these faces."""
        groups = self._groups(plan)
        if groups not in self._judged:
            pairs = zip(self.faces, self._run(groups), strict=True)
            scores = parallel(lambda pair: score_recorded(*pair), pairs, self.shop.threads)
            self._judged[groups] = quality_of(list(scores))
        return self._judged[groups]

    def _groups(self, plan: Plan) -> ChosenGroups:
        return tuple(tuple(plan.quantized(stage.name)) for stage in self.shop.stages)

    def _run(self, groups: ChosenGroups) -> list[dict[str, NDArray[Any]]]:
        """Return the tensors of each face with ``groups`` in 8 bits."""
        changed = [k for k, pair in enumerate(zip(groups, self._last, strict=True)) if len(set(pair)) > 1]
        if changed:
            behind = list(zip(self.shop.stages, groups, strict=True))[changed[0] :]
            sessions = [self.shop.open_stage(stage.name, chosen) for stage, chosen in behind]
            runs = parallel(lambda tensors: run_stages(sessions, tensors), self._tensors, self.shop.threads)
            self._tensors, self._last = list(runs), groups
        return self._tensors
