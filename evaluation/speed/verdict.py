"""Keep in an INT8 bundle's manifest whether it was faster than a float bundle of the same weights, and where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from showface.runtime.backends.int8 import MEASURED, SUFFIX, Verdict, against, cpu_name, device_name, is_int8, verdicts
from showface.runtime.bundle import MANIFEST_FILE, Bundle
from showface.runtime.files import write_file

from .subjects import ChainSubject

logger = logging.getLogger(__name__)


def keep_verdict(subjects: Sequence[tuple[ChainSubject, str]], measured: Sequence[Mapping[str, Any]]) -> str | None:
    """Write the verdict of a benchmark of an INT8 bundle and a float one into the INT8 bundle's manifest.

    Args:
        subjects: the two bundles and the device that each was asked to run on; the first is what ratios are of.
        measured: of each batch, from :func:`~.measure.measure_batch`.

    Returns:
        A sentence; None where the two are no such pair.
    """
    (first, _), (other, _) = subjects
    if is_int8(first.bundle) == is_int8(other.bundle):
        return None
    if first.bundle.manifest.checkpoint_sha256 != other.bundle.manifest.checkpoint_sha256:
        return None
    (int8, device), (single, beside) = subjects if is_int8(first.bundle) else reversed(subjects)
    names = [_name(subject, asked) for subject, asked in ((int8, device), (single, beside))]
    if names[0] != names[1]:
        return None  # two devices say nothing of either
    ratios = {str(row["batch"]): row["ratios"][other.name]["median"] for row in measured}
    if int8 is other:
        ratios = {batch: 1 / ratio for batch, ratio in ratios.items()}
    ratios = {batch: round(ratio, 3) for batch, ratio in ratios.items()}
    verdict = Verdict(names[0], int8.chain.backend, against(single.bundle, single.chain.backend), ratios)
    return _write(int8.bundle, verdict, single.bundle)


def _name(subject: ChainSubject, device: str) -> str:
    return cpu_name() if subject.chain.device == "cpu" else device_name(device)


def _write(bundle: Bundle, verdict: Verdict, single: Bundle) -> str:
    """Replace the verdict of this device, backend and opponent; return what it means."""
    same = (verdict.device, verdict.backend, verdict.against)
    others = [one for one in verdicts(bundle.manifest) if (one.device, one.backend, one.against) != same]
    record = {**(bundle.manifest.calibration or {}), MEASURED: [asdict(one) for one in (*others, verdict)]}
    fact = f"INT8 is {verdict.least:.2f} × as fast as {verdict.against} on {verdict.device}"
    path = bundle.folder / MANIFEST_FILE
    try:
        write_file(path, replace(bundle.manifest, calibration=record).to_json().encode())
    except OSError as error:
        return f"{fact}; {path} cannot be written, so that no run will know: {error.strerror or error}"
    takes = "takes" if verdict.least > 1 else "does not take"
    named = bundle.folder.resolve().name == f"{single.folder.resolve().name}{SUFFIX}"
    where = "" if named else f" once its folder is called {single.folder.name}{SUFFIX} beside that"
    return f"{fact}; {path} says so, and an inpainter of {single.folder} {takes} it{where}"
