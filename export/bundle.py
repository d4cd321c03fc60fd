"""Checkpoint to bundle: trace, write, prove parity, and only then rename into place."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from showface.evaluation.faces import Faces
from showface.evaluation.parity.cases import Case, array_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import Source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.evaluation.parity.torch_source import source_of_model
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import GOLDEN_FILE, SCHEMA_VERSION, Bundle, Manifest, check_new, write_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.files import atomic_folder
from showface.runtime.stages import CATEGORIES, CHAIN_INPUTS, VARIANTS
from showface.runtime.version import __version__
from showface.training.checkpoint import Checkpoint, model_from_checkpoint
from showface.training.networks.islands import ISLANDS
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import numpy_reference, reference_outputs, stage_modules, variant_of

from .float16 import assert_float16, convert_to_float16, half_shares
from .onnx_stages import OPSET, export_stage

PARITY_BATCHES = (1, 2, 8)
GOLDEN_FACES = 3
PRECISIONS = ("fp32", "fp16")


def export_bundle(
    checkpoint_path: Path, destination: Path, faces: Faces, threads: int | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Write the bundle of a checkpoint and return its parity figures.

    A float16 bundle is made from the float32 one after that has been proved, and is then compared with PyTorch in the
    same way: the figures are under the key ``float16``. Both run in ONNX Runtime on the CPU, which computes many
    float16 operators in float32, so that a device may differ by more; what this proves is the graph: the casts, the
    islands, the rounded weights, and that nothing leaves float16's range.

    Args:
        checkpoint_path: checkpoint of an assembled model.
        destination: folder to create; it must not exist.
        faces: real inputs for the golden file and the parity check.
        threads: number of CPU threads of ONNX Runtime.
        precision: ``fp32`` or ``fp16``.

    Raises:
        UsageError: the checkpoint is broken or the destination exists, or there is no such precision.
        ShowfaceError: the exported chain differs from PyTorch; nothing is left behind.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"{precision} is not made; use one of {', '.join(PRECISIONS)}", "precision")
    check_new(destination)
    model, checkpoint = model_from_checkpoint(checkpoint_path)
    reference = source_of_model(model, f"PyTorch {torch.__version__} with {checkpoint_path}", checkpoint.sha256)
    with atomic_folder(destination) as folder:
        bundle = _write(folder, model, checkpoint, faces)
        report = bundle_parity(bundle, reference, faces, threads)
        _refuse_difference(report, f"{checkpoint_path}: the export differs from PyTorch, nothing was kept")
        if precision == "fp16":
            bundle, shares = _lower(bundle)
            report["float16"] = {**bundle_parity(bundle, reference, faces, threads), "shares": shares}
            remedy = "nothing was kept; widen the islands in training/networks/islands.py"
            _refuse_difference(
                report["float16"], f"{checkpoint_path}: the float16 graph differs from PyTorch, {remedy}"
            )
    return report


def _refuse_difference(report: Mapping[str, Any], text: str) -> None:
    if not report["passed"]:
        views = (*report["stages"].items(), ("chain", report["chain"]))
        failures = "; ".join(f"{name}: {failure}" for name, figures in views for failure in figures["failures"])
        raise ShowfaceError(f"{text}: {failures}")


def _write(folder: Path, model: MDRNets, checkpoint: Checkpoint, faces: Faces) -> Bundle:
    """Trace the stages of a model and write its float32 bundle."""
    variant, modules = variant_of(model.config), stage_modules(model)
    half = all(not w.is_floating_point() or w.dtype == torch.float16 for w in checkpoint.weights.values())
    files = {
        f"{stage.name}.onnx": export_stage(modules[stage.name], stage, model.config, half).SerializeToString()
        for stage in VARIANTS[variant]
    }
    image, mask = (torch.from_numpy(array[:GOLDEN_FACES]) for array in faces)
    golden: dict[str, Any] = numpy_reference(reference_outputs(model, image, mask))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **golden)
    files[GOLDEN_FILE] = buffer.getvalue()
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        variant=variant,
        image_size=model.config.image_size,
        code_channels=model.config.memory.channels,
        categories=CATEGORIES,
        precision={stage.name: "float32" for stage in VARIANTS[variant]},
        weights_dtype="float16" if half else "float32",
        opset=OPSET,
        sha256={},
        checkpoint_sha256=checkpoint.sha256,
        versions={"showface": __version__, "torch": version("torch"), "onnx": version("onnx")},
    )
    return write_bundle(folder, manifest, files)


def _lower(bundle: Bundle) -> tuple[Bundle, dict[str, dict[str, float]]]:
    """Turn a float32 bundle, in its folder, into a float16 one; return it and each stage's float16 shares."""
    files, shares = {GOLDEN_FILE: bundle.read(GOLDEN_FILE)}, {}
    for stage in bundle.manifest.stages:
        proto = onnx.load_model_from_string(bundle.model(stage))
        proto = convert_to_float16(proto, ISLANDS[stage.name], stage.name)
        assert_float16(proto, stage.name)
        files[f"{stage.name}.onnx"] = proto.SerializeToString()
        shares[stage.name] = half_shares(proto)
    precision = dict.fromkeys(bundle.manifest.precision, "float16")
    manifest = replace(bundle.manifest, precision=precision, weights_dtype="float16")
    return write_bundle(bundle.folder, manifest, files), shares


def bundle_parity(bundle: Bundle, reference: Source, faces: Faces, threads: int | None = None) -> dict[str, Any]:
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
