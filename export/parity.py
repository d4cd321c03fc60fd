"""What an export has to prove before it gets its name: that the bundle computes what it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.evaluation.faces import FacePairs
from showface.evaluation.parity.cases import Case, array_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import Source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import Bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import CHAIN_INPUTS

PARITY_BATCHES = (1, 2, 8)


def bundle_parity(bundle: Bundle, reference: Source, faces: FacePairs, threads: int | None = None) -> dict[str, Any]:
    """Compare a bundle in ONNX Runtime on the CPU with ``reference``, by the tolerances of its precisions.

    The faces go in batches of 1, 2 and 8, repeated to fill a batch; further ones go alone.
    """
    candidate = source_of_bundle(bundle, open_chain(bundle, "cpu", threads))
    tolerances = plan_tolerances(candidate.identity.precision, None, {})
    return compare_sources(reference, candidate, _cases(*faces), tolerances).result


def _cases(image: NDArray[np.float32], mask: NDArray[np.float32]) -> Iterator[Case]:
    for batch in PARITY_BATCHES:
        chosen = [k % len(image) for k in range(batch)]
        yield Case(f"batch-{batch}", dict(zip(CHAIN_INPUTS, (image[chosen], mask[chosen]), strict=True)))
    most = max(PARITY_BATCHES)
    yield from array_cases(image[most:], mask[most:], "further-face")


def refuse_difference(report: Mapping[str, Any], text: str) -> None:
    """Raise what failed in a report.

    Raises:
        ShowfaceError: something did.
    """
    if not report["passed"]:
        views = (*report["stages"].items(), ("chain", report["chain"]))
        failures = "; ".join(f"{name}: {failure}" for name, figures in views for failure in figures["failures"])
        raise ShowfaceError(f"{text}: {failures}")
