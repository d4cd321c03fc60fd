"""Write the INT8 bundle: to a temporary name, then renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx import checker

from showface.runtime.bundle import GOLDEN_FILE, Bundle, check_new, open_bundle, write_bundle
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.version import __version__

from .planning.plan import INT8, Plan

PLAN_FILE = "plan.toml"


def write_int8_bundle(
    destination: Path, source: Bundle, plan: Plan, graphs: Mapping[str, bytes], record: Mapping[str, Any]
) -> Bundle:
    """Write a bundle with the quantised ``graphs`` of some stages; the others of ``source`` are copied byte by byte.

    The plan is kept beside the graphs, and in the manifest the ``record``: method, data digest and figures.

    Raises:
        UsageError: the destination exists or cannot be written; nothing is left behind.
    """
    check_new(destination)
    files = {f"{stage.name}.onnx": source.model(stage) for stage in source.manifest.graphs}
    for stage, data in graphs.items():
        checker.check_model(data)
        files[f"{stage}.onnx"] = data
    files[GOLDEN_FILE] = source.read(GOLDEN_FILE)
    files[PLAN_FILE] = plan.to_toml().encode()
    manifest = replace(
        source.manifest,
        precision={**source.manifest.precision, **dict.fromkeys(graphs, INT8)},
        versions={**source.manifest.versions, "showface": __version__, "onnx": version("onnx")},
        calibration=dict(record),
    )
    with system_errors(UsageError, destination, "cannot be written"), atomic_folder(destination) as folder:
        write_bundle(folder, manifest, files)
    return open_bundle(destination)
