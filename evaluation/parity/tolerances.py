"""What parity has to hold, by precision: one table of data, and the verdict over stored figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from showface.runtime.errors import UsageError
from showface.runtime.stages import CODES, LABELS, OCCLUDER

from .stats import MARGIN_EDGES


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds on the worst image.

    Attributes:
        max_abs: bound on the absolute error of every value of a float tensor.
        p99_abs: bound on its 99th percentile.
        min_agreement: least share of equal labels.
        tie_margin: a flipped label whose lead in the reference is larger is a fault, not a tie.
        min_psnr_db: least PSNR inside the hole of the completed image.
        code_max_factor: what ``max_abs`` is multiplied by for the tensors ``CODES``.
        code_p99_factor: the same of ``p99_abs``.
    """

    max_abs: float
    p99_abs: float
    min_agreement: float
    tie_margin: float
    min_psnr_db: float
    code_max_factor: float = 1.0
    code_p99_factor: float = 1.0


# The codes stand behind normalisations over 131,072 values. Where an input has no detail these are equal, and the
# rounding of a running float32 sum does not average out: n equal values are off by up to n·2⁻²⁵ of their sum, 2.4e-4
# for the 8,192 that ONNX Runtime adds up in each lane of its InstanceNormalization (PyTorch adds up in cascades).
# float32: summation order only. TF32 and float16 both round to 10 bits of mantissa; float16 has the smaller range. A
# parser is undecided where a face is hidden: in float16 up to 0.19 % of the labels of a face flip (default bundle, 60
# faces, ONNX Runtime on the CPU), led by 0.061 at most in the reference, and what the chain's stages round adds up to
# 0.062 in the guidance, 0.011 at its 99th percentile. int8: 8 bits a value, and logits that move by a step. Values are
# in [-1, 1] or close to it.
TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(
        max_abs=1e-4,
        p99_abs=5e-5,
        min_agreement=0.9999,
        tie_margin=1e-3,
        min_psnr_db=90.0,
        code_max_factor=10.0,
        code_p99_factor=10.0,
    ),
    "tf32": Tolerance(max_abs=5e-2, p99_abs=1e-2, min_agreement=0.998, tie_margin=5e-2, min_psnr_db=50.0),
    "float16": Tolerance(
        max_abs=5e-2,
        p99_abs=1e-2,
        min_agreement=0.998,
        tie_margin=0.1,
        min_psnr_db=50.0,
        code_max_factor=2.0,
        code_p99_factor=2.0,
    ),
    "int8": Tolerance(max_abs=1.0, p99_abs=0.25, min_agreement=0.97, tie_margin=2.0, min_psnr_db=30.0),
}
ALIASES = {"fp32": "float32", "fp16": "float16"}
LOOSENESS = tuple(TOLERANCES)  # in this order


def tolerance_of(precision: str) -> Tolerance:
    """Return the row of a precision.

    >>> tolerance_of("fp16") is TOLERANCES["float16"]
    True

    Raises:
        UsageError: the table has none.
    """
    name = ALIASES.get(precision, precision)
    if name not in TOLERANCES:
        raise UsageError(f"no tolerance for the precision {precision!r}; known: {', '.join(TOLERANCES)}")
    return TOLERANCES[name]


def override(tolerance: Tolerance, changes: Mapping[str, float | None]) -> Tolerance:
    """Return ``tolerance`` with the values of ``changes`` that are not None; bounds on errors are then for all."""
    named = {name: value for name, value in changes.items() if value is not None}
    factors = {"max_abs": "code_max_factor", "p99_abs": "code_p99_factor"}
    return replace(tolerance, **{factors[name]: 1.0 for name in named if name in factors}, **named)


def plan_tolerances(
    precision: Mapping[str, str], forced: str | None, changes: Mapping[str, float | None]
) -> dict[str, Tolerance]:
    """Return the tolerance of each stage and of the ``chain``, which gets the loosest of its stages'.

    Args:
        precision: compute precision of each stage.
        forced: a precision to judge all by instead.
        changes: fields of :class:`Tolerance` that replace the table's; None keeps the table's.
    """
    names = {stage: ALIASES.get(forced or value, forced or value) for stage, value in precision.items()}
    table = {stage: override(tolerance_of(name), changes) for stage, name in names.items()}
    chain = [name for stage, name in names.items() if stage != OCCLUDER.name]
    loosest = max(chain, key=LOOSENESS.index)
    return {**table, "chain": override(tolerance_of(loosest), changes)}


def failures_of(figures: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """Return what is wrong with the figures of one stage or of the chain, in words; empty if nothing is.

    Args:
        figures: ``tensors`` by name as :mod:`showface.evaluation.parity.accumulate` gives them, and for the chain
            its worst ``psnr_db``.
        tolerance: bounds of its precision.
    """
    found = []
    for name, tensor in figures["tensors"].items():
        if tensor.get("mismatch"):
            found.append(f"{name}: {tensor['mismatch']}")
        elif tensor["kind"] == "labels":
            found += [f"{name}: {text}" for text in _label_failures(tensor, tolerance)]
        else:
            found += [f"{name}: {text}" for text in _float_failures(tensor, tolerance, name in CODES)]
    psnr = figures.get("psnr_db")
    if psnr is not None and psnr < tolerance.min_psnr_db:
        bound = f"at least {tolerance.min_psnr_db:g} is asked for"
        found.append(f"PSNR in the hole is {psnr:.1f} dB, {bound} ({figures['psnr_image']})")
    if figures.get("own_labels_not_finite"):
        found.append(f"on its own labels {figures['own_labels_not_finite']} values of the result are not finite")
    return found


def _float_failures(tensor: Mapping[str, Any], tolerance: Tolerance, codes: bool) -> list[str]:
    counts = [f"{tensor[kind]} {kind}" for kind in ("nan", "inf") if tensor[kind]]
    if counts:
        return [f"{' and '.join(counts)} values ({tensor['worst_images']['not_finite']})"]
    bounds = {
        "max_abs": tolerance.max_abs * (tolerance.code_max_factor if codes else 1.0),
        "p99_abs": tolerance.p99_abs * (tolerance.code_p99_factor if codes else 1.0),
    }
    return [
        f"{name} is {tensor[name]:.2e}, at most {bound:g} is allowed ({tensor['worst_images'][name]})"
        for name, bound in bounds.items()
        if not tensor[name] <= bound
    ]


def _label_failures(tensor: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    found = []
    if tensor["alien"]:
        found.append(f"{tensor['alien']} labels are no category ({tensor['worst_images']['alien']})")
    if tensor["agreement"] < tolerance.min_agreement:
        found.append(
            f"agreement is {tensor['agreement']:.4%}, at least {tolerance.min_agreement:.2%} is asked for "
            f"({tensor['worst_images']['agreement']})"
        )
    largest = tensor["largest_flipped_margin"]
    if tensor["flips"] and (largest is None or largest > tolerance.tie_margin):
        where, ties = tensor["worst_images"]["margin"], f"ties end at {tolerance.tie_margin:g}"
        if largest is None:
            found.append(
                f"a label flipped, and the reference does not tell by which lead it was found, so that no tie can be "
                f"told from a fault ({where}); compare with a checkpoint, or with the golden file"
            )
        else:
            found.append(f"a label flipped with a lead of {largest:.3g}, {ties} ({where})")
    return found


def judge(result: Mapping[str, Any], tolerances: Mapping[str, Tolerance]) -> dict[str, Any]:
    """Return ``result`` with the verdict that ``tolerances`` give; nothing is run.

    Args:
        result: document of a comparison, also one read back from JSON.
        tolerances: bounds for each stage and for the ``chain``.
    """
    judged = dict(result)
    judged["tolerances"] = {name: asdict(tolerance) for name, tolerance in tolerances.items()}
    judged["stages"] = {name: _verdict(figures, tolerances[name]) for name, figures in result["stages"].items()}
    judged["chain"] = _verdict(result["chain"], tolerances["chain"])
    labels = result["chain"]["tensors"].get(LABELS)
    judged["chain"]["real_flips"] = real_flips(labels, tolerances["chain"].tie_margin) if labels else 0
    everything = (*judged["stages"].values(), judged["chain"])
    judged["passed"] = bool(result["images"]) and all(figures["passed"] for figures in everything)
    return judged


def real_flips(labels: Mapping[str, Any], tie_margin: float) -> int:
    """Return how many flipped labels were no ties; those of the bin that holds ``tie_margin`` count as none."""
    largest = labels["largest_flipped_margin"]
    if largest is not None and largest <= tie_margin:
        return 0
    above = MARGIN_EDGES[1:] > tie_margin * (1 + 1e-9)
    return sum(count for count, real in zip(labels["flipped_margins"], above, strict=True) if real)


def stored_tolerances(result: Mapping[str, Any]) -> dict[str, Tolerance]:
    """Return the tolerances that a result was judged by."""
    names = {field.name for field in fields(Tolerance)}
    return {
        key: Tolerance(**{name: float(value) for name, value in row.items() if name in names})
        for key, row in result["tolerances"].items()
    }


def _verdict(figures: Mapping[str, Any], tolerance: Tolerance) -> dict[str, Any]:
    failures = failures_of(figures, tolerance)
    return {**figures, "passed": not failures, "failures": failures}
