"""Ranges of activations by ONNX Runtime's calibrators, kept on disk under a key that tells when they are stale."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

from showface.runtime.errors import UsageError, system_errors
from showface.runtime.images import write_file

from .quantize import Range

Inputs = Mapping[str, NDArray[Any]]
Say = Callable[[str], None]


class Method(StrEnum):
    """How a range is found."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


_METHODS = {
    Method.MINMAX: CalibrationMethod.MinMax,
    Method.ENTROPY: CalibrationMethod.Entropy,
    Method.PERCENTILE: CalibrationMethod.Percentile,
}
# ONNX Runtime's default of 128 bins for entropy is as many as it quantises to: nothing would be left to
# choose. Its search loops in Python over all wider cuts, quadratic in the bins.
_BINS = {Method.ENTROPY: 256, Method.PERCENTILE: 2048}
PERCENTILE = 99.99  # one face in 24 that explodes must not set the range of all


class _OneFace(CalibrationDataReader):  # type: ignore[misc]
    """The inputs of a stage for one face: the calibrators keep all that one reader gives in memory."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs: Inputs | None = inputs

    def get_next(self) -> Inputs | None:
        inputs, self.inputs = self.inputs, None
        return inputs


def find_ranges(
    model: ModelProto,
    tensors: Sequence[str],
    faces: Iterable[Inputs],
    method: Method,
    symmetric: bool,
    threads: int | None = None,
) -> dict[str, Range]:
    """Run ``model`` over ``faces`` and return the range of each of ``tensors``.

    Args:
        model: float graph of a stage.
        tensors: names of float activations.
        faces: inputs of the stage, one face at a time; memory does not grow with their number.
        method: which calibrator.
        symmetric: whether ranges lie around 0.
        threads: for ONNX Runtime.
    """
    options: dict[str, Any] = {"symmetric": symmetric, "percentile": PERCENTILE}
    if method in _BINS:
        options["num_bins"] = _BINS[method]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints each step
        plain, augmented = Path(folder) / "stage.onnx", Path(folder) / "augmented.onnx"
        onnx.save(_typed_only(model, tensors), plain)
        calibrator = create_calibrator(plain, None, str(augmented), _METHODS[method], extra_options=options)
        # Its own session has all optimisations off and takes twice as long; outputs are computed either way.
        session = ort.SessionOptions()
        session.log_severity_level = 3
        if threads is not None:
            session.intra_op_num_threads = threads
        calibrator.infer_session = ort.InferenceSession(augmented, session, providers=["CPUExecutionProvider"])
        for inputs in faces:
            calibrator.collect_data(_OneFace(inputs))
        found = calibrator.compute_data()
    return {name: _range(found[name].range_value) for name in tensors}


def _range(values: tuple[Any, Any]) -> Range:
    low, high = (float(np.asarray(value).reshape(())) for value in values)
    return low, high


def _typed_only(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """Return a copy in which only ``tensors`` have a type: the calibrators calibrate what has one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edges = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    known = {value.name: value for value in copy.graph.value_info}
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in tensors
        if name not in edges
    )
    return copy


def collapsed(ranges: Mapping[str, Range]) -> list[str]:
    """Return the tensors whose range has no width: what was recorded is constant there."""
    return [name for name, (low, high) in ranges.items() if not high > low]


def cached_ranges(
    path: Path, key: Mapping[str, Any], compute: Callable[[], dict[str, Range]], say: Say
) -> dict[str, Range]:
    """Return the ranges in ``path`` if they were computed under ``key``, else compute and keep them.

    Args:
        path: JSON file.
        key: all that decides the result: digests, method, versions; of JSON's types.
        compute: gives the ranges.
        say: is told why a stale file is recomputed.

    Raises:
        UsageError: the file cannot be written.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return {name: (float(low), float(high)) for name, (low, high) in known["ranges"].items()}
        changed = ", ".join(name for name in key if known["key"].get(name) != key[name])
        say(f"{path}: ranges are stale ({changed} changed); computing them anew")
    ranges = compute()
    with system_errors(UsageError, path, "cannot be written"):
        write_file(path, json.dumps({"key": key, "ranges": ranges}, indent=1).encode())
    return ranges
