"""Checkpoint to bundle: trace, write, prove parity, and only then rename into place."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from showface.evaluation.parity import check_parity
from showface.runtime import backends
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import GOLDEN_FILE, MANIFEST_FILE, SCHEMA_VERSION, Bundle, Manifest, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import CATEGORIES, OCCLUDER, VARIANTS, graphs_of
from showface.runtime.version import __version__
from showface.training.checkpoint import model_from_checkpoint
from showface.training.networks.islands import ISLANDS
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import (
    OccluderStage,
    numpy_reference,
    reference_outputs,
    stage_modules,
    variant_of,
)

from .float16 import assert_float16, convert_to_float16, half_shares
from .float16_parity import float16_parity
from .occluder import Finder, open_occluder
from .onnx_stages import OPSET, export_stage

PARITY_BATCHES = (1, 2, 8)
GOLDEN_FACES = 3
PRECISIONS = ("fp32", "fp16")
Faces = tuple[NDArray[np.float32], NDArray[np.float32]]  # image [N, 3, H, W] and mask [N, 1, H, W]


def export_bundle(
    checkpoint_path: Path,
    destination: Path,
    faces: Faces,
    threads: int | None = None,
    precision: str = "fp32",
    occluder: Path | None = None,
) -> dict[str, Any]:
    """Write the bundle of a checkpoint and return its parity figures.

    A float16 bundle is made from the float32 one after that has been proved, and compared with it: the
    figures are under the key ``float16``.

    Args:
        checkpoint_path: of an assembled model.
        destination: folder to create; it must not exist.
        faces: real inputs for the golden file and the parity check.
        threads: for ONNX Runtime.
        precision: ``fp32`` or ``fp16``.
        occluder: checkpoint of the stage ``occluder``; None leaves it out of the bundle.

    Raises:
        UsageError: the checkpoint is broken or the destination exists, or there is no such precision.
        ShowfaceError: the exported chain differs from PyTorch; nothing is left behind.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: use one of {', '.join(PRECISIONS)}")
    if destination.exists():
        raise UsageError(f"{destination}: exists already; remove it or choose another folder")
    model, checkpoint = model_from_checkpoint(checkpoint_path)
    finder = None if occluder is None else open_occluder(occluder)
    half = all(not w.is_floating_point() or w.dtype == torch.float16 for w in checkpoint.weights.values())
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # in a container a killed process may have had the same number
    temporary.mkdir(parents=True)
    try:
        _write(temporary, model, checkpoint.sha256, half, faces, finder)
        report = bundle_parity(open_bundle(temporary), model, faces, threads, occluder=finder and finder.module)
        if not report["passed"]:
            views = (*report["stages"].items(), ("chain", report["chain"]))
            failures = "; ".join(f"{name}: {text}" for name, figures in views for text in figures["failures"])
            raise ShowfaceError(f"{checkpoint_path}: the export differs from PyTorch, nothing was kept: {failures}")
        if precision == "fp16":
            report["float16"] = _lower(temporary, faces, threads)
            if not report["float16"]["passed"]:
                raise ShowfaceError(
                    f"{checkpoint_path}: the float16 graph differs from the float32 one, nothing was kept; widen the "
                    f"islands in training/networks/islands.py: {report['float16']}"
                )
        os.replace(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write(
    folder: Path, model: MDRNets, checkpoint_sha256: str, half: bool, faces: Faces, finder: Finder | None
) -> None:
    variant = variant_of(model.config)
    modules = stage_modules(model)
    for stage in VARIANTS[variant]:
        proto = export_stage(modules[stage.name], stage, model.config, half)
        (folder / f"{stage.name}.onnx").write_bytes(proto.SerializeToString())
    if finder is not None:
        proto = export_stage(finder.module, OCCLUDER, model.config, half_weights=True)
        (folder / f"{OCCLUDER.name}.onnx").write_bytes(proto.SerializeToString())
    image, mask = (torch.from_numpy(array[:GOLDEN_FACES]) for array in faces)
    golden: dict[str, Any] = _references(model, finder and finder.module, image, mask)
    np.savez_compressed(folder / GOLDEN_FILE, **golden)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        variant=variant,
        image_size=model.config.image_size,
        code_channels=model.config.memory.channels,
        categories=CATEGORIES,
        precision={stage.name: "float32" for stage in graphs_of(variant, () if finder is None else (OCCLUDER.name,))},
        weights_dtype="float16" if half else "float32",
        opset=OPSET,
        sha256={p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())},
        checkpoint_sha256=checkpoint_sha256,
        versions={"showface": __version__, "torch": version("torch"), "onnx": version("onnx")},
        occluder=None if finder is None else {"checkpoint_sha256": finder.sha256},
    )
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")


@torch.no_grad()
def _references(
    model: MDRNets, occluder: OccluderStage | None, image: torch.Tensor, mask: torch.Tensor
) -> dict[str, NDArray[Any]]:
    """Return every tensor of the chain as PyTorch computes it, and what the occluder finds."""
    tensors = reference_outputs(model, image, mask)
    if occluder is not None:
        tensors["occlusion"] = occluder(image)
    return numpy_reference(tensors)


def _lower(folder: Path, faces: Faces, threads: int | None) -> dict[str, Any]:
    """Turn the float32 bundle in ``folder`` into a float16 one; return its graph parity and float16 shares."""
    bundle = open_bundle(folder)
    reference = open_chain(bundle, "cpu", threads)
    digests, shares = dict(bundle.manifest.sha256), {}
    for stage in bundle.manifest.graphs:
        proto = onnx.load_model_from_string(bundle.model(stage))
        proto = convert_to_float16(proto, ISLANDS[stage.name], stage.name)
        assert_float16(proto, stage.name)
        data = proto.SerializeToString()
        (folder / f"{stage.name}.onnx").write_bytes(data)
        digests[f"{stage.name}.onnx"] = hashlib.sha256(data).hexdigest()
        shares[stage.name] = half_shares(proto)
    precision = dict.fromkeys(bundle.manifest.precision, "float16")
    manifest = replace(bundle.manifest, precision=precision, weights_dtype="float16", sha256=digests)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    figures = float16_parity(reference, open_chain(open_bundle(folder), "cpu", threads), faces)
    return {**figures, "shares": shares}


def bundle_parity(
    bundle: Bundle,
    model: MDRNets,
    faces: Faces,
    threads: int | None = None,
    device: str = "cpu",
    backend: str = "onnxruntime",
    occluder: OccluderStage | None = None,
) -> dict[str, Any]:
    """Compare a bundle on ``device`` with PyTorch at batch 1, 2 and 8; faces are repeated to fill a batch."""
    chain = backends.open_chain(bundle, backend, device, threads)
    image, mask = faces
    references = []
    for batch in PARITY_BATCHES:
        chosen: Sequence[int] = [i % len(image) for i in range(batch)]
        references.append(_references(model, occluder, torch.from_numpy(image[chosen]), torch.from_numpy(mask[chosen])))
    return check_parity(chain, references)
