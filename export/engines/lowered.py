"""The float16 bundle beside a bundle, from which float16 engines are built: found there, or made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showface.runtime.bundle import Bundle, open_bundle
from showface.runtime.errors import UsageError, extra

FOLDER_SUFFIX = "-fp16"


@dataclass(frozen=True, slots=True)
class LoweredBundle:
    """A float16 bundle, and its parity figures where it was made just now; None where it was there."""

    bundle: Bundle
    report: Mapping[str, Any] | None


def lowered_beside(bundle: Bundle, threads: int | None = None) -> LoweredBundle:
    """Return the float16 bundle of the same weights in the folder ``<name>-fp16`` beside ``bundle``.

    It is made where there is none, by ``threads`` CPU threads of ONNX Runtime, and only for that onnx is needed.

    Raises:
        UsageError: something else is there, ``bundle`` is no float32 one, or onnx is not installed.
        ShowfaceError: the float16 graphs compute something else; nothing is left behind.
    """
    folder = _folder_beside(bundle)
    if folder.exists():
        half = open_bundle(folder)
        precisions = set(half.manifest.precision.values())
        if precisions != {"float16"} or half.manifest.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
            raise UsageError(f"{folder}: is no float16 bundle of these weights; remove it or rename {bundle.folder}")
        return LoweredBundle(half, None)
    with extra("export"):
        from ..float16_bundle import export_float16
    report = export_float16(bundle, folder, threads=threads)
    return LoweredBundle(open_bundle(folder), report)


def _folder_beside(bundle: Bundle) -> Path:
    return bundle.folder.with_name(f"{bundle.folder.resolve().name}{FOLDER_SUFFIX}")
