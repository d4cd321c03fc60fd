"""From a float32 bundle to a float16 one, without the checkpoint and without torch: convert, judge, rename."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from showface.evaluation.faces import FacePairs
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import golden_source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import GOLDEN_FILE, Bundle, as_exported, check_new, write_bundle
from showface.runtime.device_kit import TERMS
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.training.networks.islands import ISLANDS

from .float16 import assert_float16, convert_to_float16, half_shares
from .parity import bundle_parity, refuse_difference, scored_source

REMEDY = "nothing was kept; widen the islands in training/networks/islands.py"

EXPORT_PRECISIONS = ("fp32", "fp16")


def check_precision(precision: str) -> None:
    """Refuse a precision that no bundle is exported in.

    Raises:
        UsageError: names those that there are.
    """
    if precision not in EXPORT_PRECISIONS:
        raise UsageError(f"{precision} is not made; use one of {', '.join(EXPORT_PRECISIONS)}", "precision")


def export_float16(
    source: Bundle, destination: Path, faces: FacePairs | None = None, threads: int | None = None
) -> dict[str, Any]:
    """Write the float16 bundle of a float32 one and return its parity figures.

    Args:
        source: a float32 bundle; its weights may be stored as float16.
        destination: folder to create; it must not exist.
        faces: image [N, 3, H, W] and mask [N, 1, H, W], on which it is compared with the float32 bundle; None for the
            bundle's golden faces, on which it is compared with PyTorch.
        threads: for ONNX Runtime.

    Returns:
        The figures of :func:`~.parity.bundle_parity`, and under ``shares`` how much of each stage is float16.

    Raises:
        UsageError: the bundle is not float32, or the destination exists or cannot be written.
        ShowfaceError: the float16 graphs compute something else; nothing is left behind.
    """
    other = [f"{name} is {kind}" for name, kind in source.manifest.precision.items() if kind != "float32"]
    if other:
        named = ", ".join(other)
        raise UsageError(f"{source.folder}: float16 is made from a float32 bundle, and {named}; give that bundle")
    as_exported(source, "float16 is made from")
    check_new(destination)
    beside = [source.folder / name for name in TERMS if (source.folder / name).is_file()]
    with system_errors(UsageError, destination, "cannot be written"), atomic_folder(destination) as folder:
        files = {f"{stage.name}.onnx": source.model(stage) for stage in source.manifest.graphs}
        files[GOLDEN_FILE] = source.read(GOLDEN_FILE)
        bundle, shares = lower(write_bundle(folder, source.manifest, files))
        for path in beside:
            (folder / path.name).write_bytes(path.read_bytes())
        if faces is None:
            reference, case = golden_source(source)
            candidate = source_of_bundle(bundle, open_chain(bundle, "cpu", threads))
            tolerances = plan_tolerances(candidate.identity.precision, None, {})
            report = compare_sources(reference, candidate, [case], tolerances).result
        else:
            report = bundle_parity(bundle, scored_source(source, threads), faces, threads)
        refuse_difference(report, f"{source.folder}: the float16 graph differs from the float32 one, {REMEDY}")
    return {**report, "shares": shares}


def lower(bundle: Bundle) -> tuple[Bundle, dict[str, dict[str, float]]]:
    """Turn a float32 bundle, in its folder, into a float16 one; return it and each stage's float16 shares."""
    files, shares = {GOLDEN_FILE: bundle.read(GOLDEN_FILE)}, {}
    for stage in bundle.manifest.graphs:
        proto = onnx.load_model_from_string(bundle.model(stage))
        proto = convert_to_float16(proto, ISLANDS[stage.name], stage.name)
        assert_float16(proto, stage.name)
        files[f"{stage.name}.onnx"] = proto.SerializeToString()
        shares[stage.name] = half_shares(proto)
    precision = dict.fromkeys(bundle.manifest.precision, "float16")
    manifest = replace(bundle.manifest, precision=precision, weights_dtype="float16")
    return write_bundle(bundle.folder, manifest, files), shares
