"""The occluder's graph: traced beside the chain, or given to a bundle that exists."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from showface.evaluation.parity.accumulate import TensorTally
from showface.evaluation.parity.tolerances import failures_of, tolerance_of
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import GOLDEN_FILE, Bundle, as_exported, check_new, write_bundle
from showface.runtime.device_kit import TERMS
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.stages import OCCLUDER
from showface.runtime.version import __version__
from showface.training.checkpoint import occluder_from_checkpoint
from showface.training.config import NetworkConfig
from showface.training.networks.folding import round_fused
from showface.training.networks.islands import ISLANDS
from showface.training.networks.stages import OccluderStage

from .float16 import assert_float16, convert_to_float16
from .onnx_stages import export_stage
from .parity import PARITY_BATCHES

GRAPH_FILE = f"{OCCLUDER.name}.onnx"
OUTPUT = OCCLUDER.outputs[0]


@dataclass(frozen=True, slots=True)
class TracedOccluder:
    """The occluder as it is exported, and the digest of its weights."""

    module: OccluderStage
    weights_sha256: str


def open_occluder(path: Path) -> TracedOccluder:
    """Load the checkpoint that a run of the stage ``occluder`` left.

    Raises:
        UsageError: it is broken, or another stage's.
    """
    network, checkpoint = occluder_from_checkpoint(path)
    return TracedOccluder(OccluderStage(round_fused(network)).eval(), checkpoint.weights_sha256)


def add_occluder(
    source: Bundle,
    checkpoint: Path,
    destination: Path,
    faces: tuple[NDArray[np.float32], NDArray[np.float32]],
    threads: int | None = None,
) -> dict[str, Any]:
    """Copy a bundle, its engines left behind, with another occluder; the stages of the chain stay as they are.

    The occluder gets the precision of the bundle's stages: float16 where all of them are, else float32.

    Args:
        source: the bundle.
        checkpoint: of the stage ``occluder``.
        destination: folder to create; it must not exist.
        faces: image [N, 3, H, W] and mask [N, 1, H, W], to compare the graph with PyTorch on.
        threads: for ONNX Runtime.

    Returns:
        ``precision``, ``max_abs``, ``p99_abs`` and the number of ``faces``.

    Raises:
        UsageError: the checkpoint is broken, or the destination exists or cannot be written.
        ShowfaceError: the graph differs from PyTorch; nothing is left behind.
    """
    as_exported(source, "another occluder is given to")
    check_new(destination)
    finder, manifest = open_occluder(checkpoint), source.manifest
    chain = {manifest.precision[stage.name] for stage in manifest.stages}
    precision = "float16" if chain == {"float16"} else "float32"
    config = NetworkConfig(image_size=manifest.image_size)
    proto = export_stage(finder.module, OCCLUDER, config, half_weights=True)
    if precision == "float16":
        proto = convert_to_float16(proto, ISLANDS[OCCLUDER.name], OCCLUDER.name)
        assert_float16(proto, OCCLUDER.name)
    figures = _compare(proto, finder.module, faces[0], precision, threads)
    if figures["failures"]:
        raise ShowfaceError(
            f"{checkpoint}: the export differs from PyTorch, nothing was kept: {'; '.join(figures['failures'])}"
        )
    files = {f"{stage.name}.onnx": source.model(stage) for stage in manifest.stages}
    files[GRAPH_FILE] = proto.SerializeToString()
    files[GOLDEN_FILE] = _golden(source, finder.module)
    changed = replace(
        manifest,
        precision={**manifest.precision, OCCLUDER.name: precision},
        versions={**manifest.versions, "showface": __version__, "torch": version("torch"), "onnx": version("onnx")},
        occluder={"checkpoint_sha256": finder.weights_sha256},
    )
    with system_errors(UsageError, destination, "cannot be written"), atomic_folder(destination) as folder:
        write_bundle(folder, changed, files)
        for name in TERMS:
            if (source.folder / name).is_file():
                (folder / name).write_bytes((source.folder / name).read_bytes())
    return {"precision": precision, **{name: figures[name] for name in ("max_abs", "p99_abs", "faces")}}


@torch.no_grad()
def _compare(
    proto: ModelProto, module: OccluderStage, image: NDArray[np.float32], precision: str, threads: int | None
) -> dict[str, Any]:
    """Compare a graph with PyTorch at batch 1, 2 and 8; faces are repeated to fill a batch."""
    session = open_session(proto.SerializeToString(), OCCLUDER, None, threads)
    tally, count = TensorTally(OUTPUT), 0
    for batch in PARITY_BATCHES:
        chosen = np.ascontiguousarray(image[[i % len(image) for i in range(batch)]])
        wanted = module(torch.from_numpy(chosen)).numpy()
        found = session.run({"image": chosen})[OUTPUT]
        for index in range(batch):
            tally.add(f"batch {batch}, face {index}", wanted[index], found[index], None)
            count += 1
    figures = tally.to_dict()
    failures = failures_of({"tensors": {OUTPUT: figures}}, tolerance_of(precision))
    return {"max_abs": figures["max_abs"], "p99_abs": figures["p99_abs"], "faces": count, "failures": failures}


@torch.no_grad()
def _golden(source: Bundle, module: OccluderStage) -> bytes:
    """Return the bundle's golden file with what the occluder finds on its faces."""
    golden, buffer = source.golden(), io.BytesIO()
    golden[OUTPUT] = module(torch.from_numpy(golden["image"])).numpy()
    tensors: dict[str, Any] = golden
    np.savez_compressed(buffer, **tensors)
    return buffer.getvalue()
