"""From a float32 bundle to a float16 one, without the checkpoint and without torch: convert, judge, rename."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import GOLDEN_FILE, MANIFEST_FILE, Bundle, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.training.networks.islands import ISLANDS

from .float16 import assert_float16, convert_to_float16, half_shares
from .float16_parity import Faces, float16_parity

BESIDE = ("MODEL_CARD.md", "LICENSE-weights")  # what goes with the weights wherever they go


def check_new(destination: Path) -> None:
    """Refuse a destination that exists.

    Raises:
        UsageError: it does.
    """
    if os.path.lexists(destination):
        raise UsageError(f"{destination}: exists already; remove it or choose another name")


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """Give a folder beside ``destination`` to write in, which gets that name if all goes well.

    Raises:
        UsageError: the destination exists or cannot be written.
    """
    check_new(destination)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        with system_errors(UsageError, destination, "cannot be written"):
            shutil.rmtree(temporary, ignore_errors=True)  # in a container a killed process may have had the same number
            temporary.mkdir(parents=True)
        yield temporary
        with system_errors(UsageError, destination, "cannot be written"):
            os.replace(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_float16(source: Bundle, destination: Path, faces: Faces, threads: int | None = None) -> dict[str, Any]:
    """Write the float16 bundle of a float32 one and return how far it is from it.

    Args:
        source: a float32 bundle; its weights may be stored as float16.
        destination: folder to create; it must not exist.
        faces: image [N, 3, H, W] and mask [N, 1, H, W] to judge it by.
        threads: for ONNX Runtime.

    Returns:
        The figures of :func:`~.float16_parity.float16_parity`, and under ``shares`` how much is float16.

    Raises:
        UsageError: the bundle is not float32, or the destination exists or cannot be written.
        ShowfaceError: the float16 graphs differ from the float32 ones; nothing is left behind.
    """
    check_float32(source)
    with new_folder(destination) as folder:
        with system_errors(UsageError, destination, "cannot be written"):
            for name in (*(f"{stage.name}.onnx" for stage in source.manifest.stages), GOLDEN_FILE):
                (folder / name).write_bytes(source.read(name))
            shutil.copyfile(source.folder / MANIFEST_FILE, folder / MANIFEST_FILE)
            for path in (source.folder / name for name in BESIDE):
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
        report = lower(folder, faces, threads)
        if not report["passed"]:
            raise ShowfaceError(f"{source.folder}: {differs(report)}")
    return report


def check_float32(bundle: Bundle) -> None:
    """Refuse a bundle that float16 cannot be made from.

    Raises:
        UsageError: a stage is float16 or int8 already.
    """
    other = {name: kind for name, kind in bundle.manifest.precision.items() if kind != "float32"}
    if other:
        named = ", ".join(f"{name} is {kind}" for name, kind in other.items())
        raise UsageError(f"{bundle.folder}: float16 is made from a float32 bundle, and {named}; give that bundle")


def differs(report: dict[str, Any]) -> str:
    """Return the sentence about graphs that were judged and did not pass."""
    return (
        "the float16 graph differs from the float32 one, nothing was kept; widen the islands in "
        f"training/networks/islands.py: { {key: report[key] for key in ('faces', 'stages', 'chain')} }"
    )


def lower(folder: Path, faces: Faces, threads: int | None) -> dict[str, Any]:
    """Turn the float32 bundle in ``folder`` into a float16 one; return its graph parity and float16 shares."""
    bundle = open_bundle(folder)
    reference = open_chain(bundle, "cpu", threads)
    digests, shares = dict(bundle.manifest.sha256), {}
    for stage in bundle.manifest.stages:
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
