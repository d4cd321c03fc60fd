"""Write the INT8 bundle: to a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import ModelProto, checker

from showface.runtime.bundle import GOLDEN_FILE, MANIFEST_FILE, Bundle, open_bundle
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.version import __version__

from .plan import INT8, Plan

PLAN_FILE = "plan.toml"


def check_new(destination: Path) -> None:
    """Refuse a destination that exists.

    Raises:
        UsageError: it does.
    """
    if os.path.lexists(destination):
        raise UsageError(f"{destination}: exists already; remove it or choose another folder")


def write_bundle(
    destination: Path, source: Bundle, plan: Plan, graphs: Mapping[str, ModelProto], record: Mapping[str, Any]
) -> Bundle:
    """Write a bundle with the quantised ``graphs``; every other stage is copied byte by byte.

    Args:
        destination: folder to create; it must not exist.
        source: the float bundle.
        plan: is kept beside the graphs.
        graphs: of the stages that are quantised, by name.
        record: method, data digest and figures for the manifest; of JSON's types.

    Raises:
        UsageError: the destination exists or cannot be written; nothing is left behind.
    """
    check_new(destination)
    files = {f"{stage.name}.onnx": source.model(stage) for stage in source.manifest.graphs}
    for stage, graph in graphs.items():
        checker.check_model(graph)
        files[f"{stage}.onnx"] = graph.SerializeToString()
    files[GOLDEN_FILE] = source.read(GOLDEN_FILE)
    files[PLAN_FILE] = plan.to_toml().encode()
    manifest = replace(
        source.manifest,
        precision={**source.manifest.precision, **dict.fromkeys(graphs, INT8)},
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        versions={**source.manifest.versions, "showface": __version__, "onnx": version("onnx")},
        calibration=dict(record),
    )
    files[MANIFEST_FILE] = manifest.to_json().encode()
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    with system_errors(UsageError, destination, "cannot be written"):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            os.replace(temporary, destination)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return open_bundle(destination)
