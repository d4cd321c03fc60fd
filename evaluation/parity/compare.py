"""The comparison: every stage alone on the same inputs, then the chain on its own outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from showface.runtime.backends.chain import Tensors
from showface.runtime.errors import UsageError
from showface.runtime.stages import CHAIN_OUTPUT, LABELS, SEMANTIC_MARGIN, VARIANTS, Stage, graphs_of
from showface.runtime.untrusted.read import read_json, shown

from .accumulate import PERFECT, ComparedPicture, Gallery, TensorTally, finite
from .cases import Case
from .sources import Source, check_pair
from .stats import float_figures, hole_figures
from .tolerances import Tolerance, judge, plan_tolerances, stored_tolerances

RESULT_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """What a comparison found.

    Attributes:
        result: the judged figures, as JSON can hold them.
        pictures: the worst images, worst first.
        suspects: for each stage alone, the cases that were the worst in one of its outputs' figures.
    """

    result: dict[str, Any]
    pictures: list[ComparedPicture]
    suspects: Mapping[str, list[Case]]


@dataclass(slots=True)
class Comparison:
    """Two sources and what is known of their difference so far."""

    reference: Source
    candidate: Source
    stages: tuple[Stage, ...] = field(init=False)
    alone: dict[str, dict[str, TensorTally]] = field(init=False)
    chained: dict[str, TensorTally] = field(init=False)
    own: dict[str, TensorTally] = field(init=False)
    gallery: Gallery = field(default_factory=Gallery)
    suspects: dict[str, dict[str, Case]] = field(init=False)
    psnr: float = float("inf")
    psnr_image: str = ""
    ssim: float = 1.0
    images: int = 0
    cases: int = 0

    def __post_init__(self) -> None:
        check_pair(self.reference.identity, self.candidate.identity)
        sides = (self.reference.identity, self.candidate.identity)
        chain = VARIANTS[self.reference.identity.variant]
        both = set.intersection(*(set(side.precision) for side in sides))
        self.stages = graphs_of(self.reference.identity.variant, both)
        self.alone = {stage.name: {name: TensorTally(name) for name in stage.outputs} for stage in self.stages}
        self.suspects = {stage.name: {} for stage in self.stages}
        outputs = [name for stage in chain for name in stage.outputs]
        self.chained = {name: TensorTally(name) for name in outputs}
        self.own = {name: TensorTally(name) for name in outputs if name in (LABELS, CHAIN_OUTPUT)}

    def add(self, case: Case) -> tuple[Tensors, Tensors]:
        """Compare one case; return the tensors of the reference's and of the candidate's own chain."""
        reference, candidate = self.reference.chain(case), self.candidate.chain(case)
        self.cases += 1
        self.images += len(case.inputs["image"])
        self._add_chain(case, reference, candidate)
        for stage in self.stages:
            pair = self._stage_pair(stage, reference, candidate)
            for name in stage.outputs if pair else ():
                if name not in case.given:
                    assert pair is not None
                    margin = pair[0].get(SEMANTIC_MARGIN) if name == LABELS else None
                    led = _tally(self.alone[stage.name][name], case, pair[0][name], pair[1][name], margin)
                    self.suspects[stage.name].update({f"{name} {figure}": case for figure in led})
        return reference, candidate

    def _stage_pair(self, stage: Stage, reference: Tensors, candidate: Tensors) -> tuple[Tensors, Tensors] | None:
        """Return both sides' outputs of one stage on the same inputs, or None where neither side can run it.

        Where the candidate was kept and the reference runs, the reference gets the candidate's inputs.
        """
        if self.candidate.runs:
            return reference, self.candidate.stage(stage, reference)
        if self.reference.runs:
            return self.reference.stage(stage, candidate), candidate
        return None

    def _add_chain(self, case: Case, reference: Tensors, candidate: Tensors) -> None:
        """Judge the chain twice.

        A label that flips on a tie changes everything after it. So the bounds on errors hold for
        chains with equal labels; of the chain on its own labels, no flip may be more than a tie.
        """
        for name, tally in self.own.items():
            if name not in case.given:
                _tally(tally, case, reference[name], candidate[name], reference.get(SEMANTIC_MARGIN))
        pair = reference, candidate
        if LABELS in self.own and not np.array_equal(reference[LABELS], candidate[LABELS]):
            if self.candidate.runs:
                pair = reference, self.candidate.chain(case, {LABELS: reference[LABELS]})
            elif self.reference.runs:
                pair = self.reference.chain(case, {LABELS: candidate[LABELS]}), candidate
        for name, tally in self.chained.items():
            if name != LABELS:
                _tally(tally, case, pair[0][name], pair[1][name], None)
        self._add_images(case, *pair)

    def _add_images(self, case: Case, reference: Tensors, candidate: Tensors) -> None:
        if reference[CHAIN_OUTPUT].shape != candidate[CHAIN_OUTPUT].shape:
            return  # the tally names the mismatch
        for index, (ours, theirs) in enumerate(zip(reference[CHAIN_OUTPUT], candidate[CHAIN_OUTPUT], strict=True)):
            image, mask = case.inputs["image"][index], case.inputs["mask"][index]
            psnr, ssim = hole_figures(ours, theirs, mask)
            if psnr < self.psnr or not self.psnr_image:
                self.psnr, self.psnr_image = min(self.psnr, _or(psnr, np.inf)), case.image_name(index)
            self.ssim = min(self.ssim, _or(ssim, 1.0))
            figures = float_figures(ours, theirs)
            badness = np.inf if figures.nan + figures.inf else figures.max_abs
            # Copies: a view would keep its whole batch alive.
            arrays = (np.array(array) for array in (image, mask, ours, theirs))
            self.gallery.offer(badness, ComparedPicture(case.image_name(index), *arrays))

    def outcome(self, tolerances: Mapping[str, Tolerance]) -> ComparisonResult:
        """Return what was found so far, judged by ``tolerances``."""
        suspects = {stage: list({c.name: c for c in worst.values()}.values()) for stage, worst in self.suspects.items()}
        return ComparisonResult(judge(self.figures(), tolerances), self.gallery.worst_first(), suspects)

    def figures(self) -> dict[str, Any]:
        """Return what was measured, not yet judged, as JSON can hold it."""
        return {
            "schema_version": RESULT_SCHEMA,
            "reference": asdict(self.reference.identity),
            "candidate": asdict(self.candidate.identity),
            "not_compared": self._not_compared(),
            "cases": self.cases,
            "images": self.images,
            "stages": {n: _summary(t) for n, t in self.alone.items() if any(tally.used for tally in t.values())},
            "chain": self._chain_figures(),
        }

    def _not_compared(self) -> list[str]:
        """Return a sentence for each stage that only one side has: the occluder is optional."""
        sides = ((self.reference.identity, self.candidate.identity), (self.candidate.identity, self.reference.identity))
        return [
            f"{name} was not compared: {other.description} has none"
            for one, other in sides
            for name in one.precision
            if name not in other.precision
        ]

    def _chain_figures(self) -> dict[str, Any]:
        own = {name: tally.to_dict() for name, tally in self.own.items() if tally.used}
        labels = own.get(LABELS)
        tensors = {name: tally.to_dict() for name, tally in self.chained.items() if tally.used}
        if labels is not None:
            order = list(self.chained)
            tensors = dict(sorted({**tensors, LABELS: labels}.items(), key=lambda entry: order.index(entry[0])))
        result = own[CHAIN_OUTPUT]
        return {
            **_worst(tensors),
            "own_labels_max_abs": result["max_abs"],
            "own_labels_mean_abs": result["mean_abs"],
            "own_labels_not_finite": result["nan"] + result["inf"],
            "flips": labels["flips"] if labels else 0,
            "largest_flipped_margin": labels["largest_flipped_margin"] if labels else 0.0,
            "psnr_db": finite(self.psnr),
            "psnr_image": self.psnr_image,
            "ssim": finite(self.ssim),
            "worst_image": tensors[CHAIN_OUTPUT]["worst_image"],
            "tensors": tensors,
        }


def compare_sources(
    reference: Source,
    candidate: Source,
    cases: Iterable[Case],
    tolerances: Mapping[str, Tolerance],
    seen: Callable[[Case, Tensors, Tensors], None] | None = None,
) -> ComparisonResult:
    """Compare two sources over a stream of cases.

    Args:
        reference: what is right.
        candidate: what is to be proved.
        cases: read one by one and not kept.
        tolerances: bounds for each stage and for the ``chain``.
        seen: called after each case with the tensors of both sides' own chains.

    Raises:
        UsageError: the two cannot be compared, or there are no cases.
    """
    comparison = Comparison(reference, candidate)
    for case in cases:
        ours, theirs = comparison.add(case)
        if seen is not None:
            seen(case, ours, theirs)
    if not comparison.cases:
        raise UsageError("there is no image to compare; name a folder of faces and their masks")
    return comparison.outcome(tolerances)


def _tally(tally: TensorTally, case: Case, reference: Any, candidate: Any, margin: Any) -> list[str]:
    """Add a case's images and return the figures of which one of them is the worst so far."""
    before = dict(tally.leaders)
    if len(reference) != len(candidate):
        tally.mismatch = f"batch {len(candidate)} instead of {len(reference)} ({case.name})"
        return ["mismatch"]
    for index in range(len(reference)):
        lead = None if margin is None else margin[index]
        tally.add(case.image_name(index), reference[index], candidate[index], lead)
    return [name for name, leader in tally.leaders.items() if before.get(name) != leader and leader[0] > PERFECT[name]]


def _summary(tallies: Mapping[str, TensorTally]) -> dict[str, Any]:
    tensors = {name: tally.to_dict() for name, tally in tallies.items() if tally.used}
    return {**_worst(tensors), "tensors": tensors}


def _worst(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the worst of the tensors' figures: errors of the floats, agreement of the labels."""
    floats = [tensor for tensor in tensors.values() if tensor["kind"] == "float"]
    labels = [tensor for tensor in tensors.values() if tensor["kind"] == "labels"]
    return {
        "max_abs": max((tensor["max_abs"] for tensor in floats), default=0.0),
        "mean_abs": max((tensor["mean_abs"] for tensor in floats), default=0.0),
        "agreement": min((tensor["agreement"] for tensor in labels), default=1.0),
    }


def _or(value: float, replacement: float) -> float:
    return replacement if np.isnan(value) else value


def read_result(path: Path) -> dict[str, Any]:
    """Read the JSON of an earlier comparison.

    Raises:
        UsageError: it cannot be read, or is none, or of a newer version.
    """
    mend = "compare again, and keep the figures as JSON"
    result: dict[str, Any] = read_json(path, "the result of a comparison", mend)
    try:
        version = result["schema_version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"'schema_version' is {shown(version)}")
        if version > RESULT_SCHEMA:
            raise UsageError(f"{path}: schema {shown(version)} is newer than {RESULT_SCHEMA}; pip install -U showface")
        plan_tolerances(result["candidate"]["precision"], None, {})
        judge(result, stored_tolerances(result))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not the result of a comparison: {error!r}; {mend}") from error
    return result
