"""Checkpoint to bundle: trace, write, prove parity, and only then rename into place."""

from __future__ import annotations

import io
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from showface.evaluation.faces import FacePairs
from showface.evaluation.parity.torch_source import source_of_model
from showface.runtime.bundle import GOLDEN_FILE, SCHEMA_VERSION, Bundle, Manifest, check_new, write_bundle
from showface.runtime.files import atomic_folder
from showface.runtime.stages import CATEGORIES, OCCLUDER, VARIANTS, graphs_of
from showface.runtime.version import __version__
from showface.training.checkpoint import Checkpoint, model_from_checkpoint
from showface.training.networks.folding import round_folded
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import numpy_reference, reference_outputs, run_stage, stage_modules, variant_of

from .float16_bundle import REMEDY, check_precision, lower
from .occluder import GRAPH_FILE, TracedOccluder, open_occluder
from .onnx_stages import OPSET, export_stage
from .parity import bundle_parity, refuse_difference

GOLDEN_FACES = 3


def export_bundle(
    checkpoint_path: Path,
    destination: Path,
    faces: FacePairs,
    threads: int | None = None,
    precision: str = "fp32",
    occluder: Path | None = None,
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
        occluder: checkpoint of the stage ``occluder``; None leaves it out of the bundle.

    Raises:
        UsageError: the checkpoint is broken or the destination exists, or there is no such precision.
        ShowfaceError: the exported chain differs from PyTorch; nothing is left behind.
    """
    check_precision(precision)
    check_new(destination)
    model, checkpoint = model_from_checkpoint(checkpoint_path)
    finder = None if occluder is None else open_occluder(occluder)
    description = f"PyTorch {torch.__version__} with {checkpoint_path}"
    if checkpoint.half:
        round_folded(model)
    occluder_stage = None if finder is None else finder.module
    reference = source_of_model(model, description, checkpoint.weights_sha256, occluder_stage)
    with atomic_folder(destination) as folder:
        bundle = _write(folder, model, checkpoint, faces, finder)
        report = bundle_parity(bundle, reference, faces, threads)
        refuse_difference(report, f"{checkpoint_path}: the export differs from PyTorch, nothing was kept")
        if precision == "fp16":
            bundle, shares = lower(bundle)
            report["float16"] = {**bundle_parity(bundle, reference, faces, threads), "shares": shares}
            refuse_difference(report["float16"], f"{checkpoint_path}: the float16 graph differs from PyTorch, {REMEDY}")
    return report


def _write(
    folder: Path, model: MDRNets, checkpoint: Checkpoint, faces: FacePairs, finder: TracedOccluder | None
) -> Bundle:
    """Trace the stages of a model and write its float32 bundle."""
    variant, modules = variant_of(model.config), stage_modules(model)
    half = checkpoint.half
    files = {
        f"{stage.name}.onnx": export_stage(modules[stage.name], stage, model.config, half).SerializeToString()
        for stage in VARIANTS[variant]
    }
    image, mask = (torch.from_numpy(array[:GOLDEN_FACES]) for array in faces)
    tensors = reference_outputs(model, image, mask)
    if finder is not None:
        files[GRAPH_FILE] = export_stage(finder.module, OCCLUDER, model.config, True).SerializeToString()
        tensors.update(run_stage(finder.module, OCCLUDER, tensors))
    golden: dict[str, Any] = numpy_reference(tensors)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **golden)
    files[GOLDEN_FILE] = buffer.getvalue()
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        variant=variant,
        image_size=model.config.image_size,
        code_channels=model.config.memory.channels,
        categories=CATEGORIES,
        precision={stage.name: "float32" for stage in graphs_of(variant, () if finder is None else (OCCLUDER.name,))},
        weights_dtype="float16" if half else "float32",
        opset=OPSET,
        sha256={},
        checkpoint_sha256=checkpoint.weights_sha256,
        versions={"showface": __version__, "torch": version("torch"), "onnx": version("onnx")},
        network=asdict(model.config),
        occluder=None if finder is None else {"checkpoint_sha256": finder.weights_sha256},
    )
    return write_bundle(folder, manifest, files)
