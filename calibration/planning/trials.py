"""Trials of plans on the faces that they are made on: no plan twice, and no stage before the first that changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from numpy.typing import NDArray

from showface.runtime.backends.chain import Session
from showface.runtime.stages import CHAIN_OUTPUT

from ..recording import Recorded
from .candidates import Workshop
from .plan import Plan
from .quality import Estimate, estimate_of, run_stages

ChosenGroups = tuple[tuple[str, ...], ...]  # the layer groups in 8 bits of each stage, in order


class Trials:
    """Estimates what plans cost on the same faces, one plan after the other.

    Most plans of a search differ from the last one in a few stages: the outputs of those before the first that
    differs are kept, about 4 MB a face.

    Args:
        shop: what the stages are made of.
        faces: that every plan is tried on.
    """

    def __init__(self, shop: Workshop, faces: Sequence[Recorded]) -> None:
        self.shop, self.faces = shop, faces
        self._sessions: dict[str, tuple[tuple[str, ...], Session]] = {}
        self._last: ChosenGroups = ((),) * len(shop.stages)  # in float, as it was recorded
        self._tensors: list[dict[str, NDArray[Any]]] = [dict(face.tensors) for face in faces]
        self._known: dict[ChosenGroups, Estimate] = {self._last: self._compared()}

    def estimate(self, plan: Plan) -> Estimate:
        """Return what ``plan`` costs."""
        layers = tuple(tuple(plan.quantized(stage.name)) for stage in self.shop.stages)
        if layers not in self._known:
            first = next(k for k, pair in enumerate(zip(layers, self._last, strict=True)) if len(set(pair)) > 1)
            changed = list(zip(self.shop.stages, layers, strict=True))[first:]
            sessions = [self._session(stage.name, groups) for stage, groups in changed]
            self._tensors = [run_stages(sessions, tensors) for tensors in self._tensors]
            self._last = layers
            self._known[layers] = self._compared()
        return self._known[layers]

    def _compared(self) -> Estimate:
        return estimate_of(list(zip(self.faces, self._tensors, strict=True)), CHAIN_OUTPUT)

    def _session(self, stage: str, groups: Collection[str]) -> Session:
        groups = tuple(groups)
        if stage not in self._sessions or self._sessions[stage][0] != groups:
            self._sessions[stage] = groups, self.shop.open_stage(stage, groups)
        return self._sessions[stage][1]
