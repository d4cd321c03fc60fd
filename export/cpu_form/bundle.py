"""From a float32 bundle to its CPU form: rewrite, compare, rename."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import checker

from showface.evaluation.parity.accumulate import TensorTally
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import CPU_FORM, GOLDEN_FILE, Bundle, as_exported, check_new, write_bundle
from showface.runtime.device_kit import TERMS
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.stages import LABELS, Stage

from ..parity import bundle_parity, refuse_difference, scored_source
from .form import cpu_form

LIMIT = 1e-5  # of the difference of any value that a stage gives for the same inputs, where they lie in [-1, 1]


def export_cpu_form(source: Bundle, destination: Path, threads: int | None = None) -> dict[str, Any]:
    """Write the CPU form of a float32 bundle, and return how far it differs.

    Each stage alone is compared with the one it came from on the golden faces, then the whole chain.

    Args:
        source: a float32 bundle, as it was exported.
        destination: folder to create; it must not exist.
        threads: for ONNX Runtime.

    Returns:
        Stage → largest difference of its outputs; none for the parser, whose labels the comparison of the chain judges.

    Raises:
        UsageError: the bundle is not float32 or has the form already, or the destination exists or cannot be written.
        ShowfaceError: the graphs compute something else; nothing is left behind.
    """
    as_exported(source, "it is made once, from")
    other = [f"{name} is {kind}" for name, kind in source.manifest.precision.items() if kind != "float32"]
    if other:
        raise UsageError(f"{source.folder}: a CPU form is made from a float32 bundle, and {', '.join(other)}")
    check_new(destination)
    files, differences = {GOLDEN_FILE: source.read(GOLDEN_FILE)}, {}
    with system_errors(UsageError, destination, "cannot be written"), atomic_folder(destination) as folder:
        for stage in source.manifest.graphs:
            model = cpu_form(source.model(stage))
            checker.check_model(model)
            files[f"{stage.name}.onnx"] = model.SerializeToString()
            if LABELS not in stage.outputs:
                differences[stage.name] = _difference(source, stage, files[f"{stage.name}.onnx"], threads)
        bundle = write_bundle(folder, replace(source.manifest, weights_dtype="float32", form=CPU_FORM), files)
        for name in TERMS:
            if (source.folder / name).is_file():
                (folder / name).write_bytes((source.folder / name).read_bytes())
        golden = source.golden()
        report = bundle_parity(bundle, scored_source(source, threads), (golden["image"], golden["mask"]), threads)
        refuse_difference(report, f"{source.folder}: its CPU form differs, nothing was kept")
    return differences


def _difference(source: Bundle, stage: Stage, data: bytes, threads: int | None) -> float:
    """Return how far a stage's form differs at most from the stage, on the golden faces.

    A tensor with values beyond 1, as codes may have, is measured by its largest.

    Raises:
        ShowfaceError: by more than ``LIMIT``.
    """
    golden = source.golden()
    inputs = {name: golden[name] for name in stage.inputs}
    pair = [open_session(graph, stage, None, threads).run(inputs) for graph in (source.model(stage), data)]
    found = 0.0
    for name in stage.outputs:
        tally = TensorTally(name)
        for index, (wanted, values) in enumerate(zip(*(outputs[name] for outputs in pair), strict=True)):
            tally.add(f"face {index}", wanted, values, None)
        found = max(found, float(tally.to_dict()["max_abs"]) / max(1.0, float(np.abs(pair[0][name]).max())))
    if found > LIMIT:
        raise ShowfaceError(
            f"{source.folder}: stage {stage.name}: its CPU form differs by {found:.1e} (at most {LIMIT:.0e}), "
            "nothing was kept; run on the bundle as it is"
        )
    return found
