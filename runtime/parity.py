"""Does a chain compute what the reference computed? Every stage alone, then the whole chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .session import Chain, Session, Tensors
from .stages import CHAIN_INPUTS, CHAIN_OUTPUT, TENSORS

MAX_ABS = 1e-4  # of every float output, in float32
MIN_AGREEMENT = 0.9999  # share of equal labels
TIE_MARGIN = 1e-3  # a flipped label whose lead in the reference is smaller is a tie, not a fault
MARGIN = "semantic_margin"  # [B, H, W], the reference's lead of the best label over the second best


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a candidate is from the reference, over all tensors compared."""

    max_abs: float = 0.0
    mean_abs: float = 0.0
    agreement: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether the worst value is within the bounds; false for NaN."""
        return self.max_abs <= MAX_ABS and self.agreement >= MIN_AGREEMENT

    def worst(self, other: Difference) -> Difference:
        """Return the worse of each figure; NaN is worst."""
        return Difference(
            float(np.maximum(self.max_abs, other.max_abs)),
            float(np.maximum(self.mean_abs, other.mean_abs)),
            min(self.agreement, other.agreement),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the verdict."""
        return {
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "agreement": self.agreement,
            "passed": self.passed,
        }


def compare(reference: NDArray[Any], candidate: NDArray[Any]) -> Difference:
    """Compare two tensors: floats by absolute error (NaN where either has one), labels by agreement."""
    if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
        return Difference(float("nan"), float("nan"), 0.0)
    if np.issubdtype(reference.dtype, np.integer):
        return Difference(agreement=float(np.mean(reference == candidate)))
    error = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    return Difference(float(error.max()), float(error.mean()))


def compare_stage(session: Session, reference: Tensors) -> Difference:
    """Run one stage on the reference's inputs and compare all its outputs."""
    outputs = session.run({name: reference[name] for name in session.stage.inputs})
    worst = Difference()
    for name in session.stage.outputs:
        worst = worst.worst(compare(reference[name], outputs[name]))
    return worst


def compare_chain(chain: Chain, reference: Tensors) -> dict[str, Any]:
    """Run the chain on the reference's inputs and compare its result, judged twice.

    A label that flips on a tie changes everything after it. So the bound on the error holds for the
    chain that is given the reference's ``semantic_map``; of the chain on its own labels, no flip
    may have a margin that makes it more than a tie.
    """
    inputs = {name: reference[name] for name in CHAIN_INPUTS}
    own = chain.run(inputs)
    labels = "semantic_map"
    guided = chain.run(inputs, given={labels: reference[labels]}) if labels in own else own
    flipped = own[labels] != reference[labels]
    margins = reference[MARGIN][flipped]
    on_reference_labels = compare(reference[CHAIN_OUTPUT], guided[CHAIN_OUTPUT])
    own_difference = compare(reference[CHAIN_OUTPUT], own[CHAIN_OUTPUT])
    real_flips = int((~(margins <= TIE_MARGIN)).sum())  # a NaN margin excuses nothing
    agreement = float(1.0 - flipped.mean())
    return {
        "max_abs": on_reference_labels.max_abs,
        "mean_abs": on_reference_labels.mean_abs,
        "agreement": agreement,
        "own_labels_max_abs": own_difference.max_abs,
        "own_labels_mean_abs": own_difference.mean_abs,
        "flips": int(flipped.sum()),
        "real_flips": real_flips,
        "largest_flipped_margin": float(margins.max(initial=0.0)),
        "passed": on_reference_labels.passed and real_flips == 0 and agreement >= MIN_AGREEMENT,
    }


def check_parity(chain: Chain, references: Sequence[Tensors]) -> dict[str, Any]:
    """Compare a chain with several references, such as batches of different sizes.

    Returns:
        ``{"passed", "stages": {name: {"max_abs", "mean_abs", "agreement", "passed"}}, "chain": {…}}``
        with the worst figures over the references.
    """
    stages = {}
    for session in chain.sessions:
        worst = Difference()
        for reference in references:
            worst = worst.worst(compare_stage(session, reference))
        stages[session.stage.name] = worst.to_dict()
    chains = [compare_chain(chain, reference) for reference in references]
    total: dict[str, Any] = {}
    for key in chains[0]:
        values = [figures[key] for figures in chains]
        lowest = key in ("agreement", "passed")
        total[key] = min(values) if lowest else sum(values) if key.endswith("flips") else float(np.max(values))
    passed = total["passed"] and all(figures["passed"] for figures in stages.values())
    return {"passed": bool(passed), "stages": stages, "chain": total}


def golden_reference(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """Return the bundle's golden tensors, with which a device proves itself without torch."""
    golden = bundle.golden()
    expected = {MARGIN, *CHAIN_INPUTS, *(o for s in bundle.manifest.stages for o in s.outputs)}
    return {name: golden[name] for name in sorted(expected & set(TENSORS) | {MARGIN})}


