"""Ranges of activations by ONNX Runtime's calibrators, kept on disk under a key that tells when they are stale."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    HistogramCollector,
    create_calibrator,
)

from showface.export.graph import shapes
from showface.runtime.backends.onnxruntime import session_options
from showface.runtime.errors import InputError, UsageError, system_errors
from showface.runtime.images.codec import write_file
from showface.runtime.untrusted.read import MAX_TEXT, parse_json, read_file

from .parallel import parallel
from .quantize import Range
from .settings import Calibrator

logger = logging.getLogger(__name__)

StageInputs = Mapping[str, NDArray[Any]]
RangeOptions = dict[str, dict[str, Range]]  # setting of a method → tensor → range


# ONNX Runtime's default of 128 bins for entropy is as many as it quantises to: nothing would be left to
# choose. Its search loops in Python over all wider cuts, quadratic in the bins.
_BINS = {Calibrator.ENTROPY: 256, Calibrator.PERCENTILE: 2048}
LEVELS = 128  # that entropy compares against
SAMPLE = 2**15  # values of a tensor and a face; of 256 faces still 550 lie beyond the highest percentile
# One face in 24 that explodes must not set the range of all, and not every stage has such faces: which of these
# suits a stage is measured. The first that is tried is the one that clips least.
PERCENTILES = (99.99, 99.95, 99.9, 99.7)


def settings_of(method: Calibrator) -> tuple[str, ...]:
    """Return the settings that a method tries: percentiles, or itself alone."""
    return tuple(map(str, PERCENTILES)) if method is Calibrator.PERCENTILE else (str(method),)


def find_ranges(
    model: ModelProto,
    tensors: Sequence[str],
    faces: Iterable[StageInputs],
    method: Calibrator,
    symmetric: bool,
    threads: int = 1,
) -> RangeOptions:
    """Run ``model`` over ``faces`` and return the range of each of ``tensors``, under each setting of ``method``.

    The faces are inputs of the stage, ``threads`` of which run side by side (for ``minmax`` one at a time): memory does
    not grow with their number.
    The tensors are float activations; ``symmetric`` ranges lie around 0.

    Returns:
        Each of :func:`settings_of` the method → tensor → range.
    """
    if method is Calibrator.MINMAX:
        return {str(method): _extremes(model, tensors, faces, symmetric)}
    collector = HistogramCollector(
        method=str(method),
        symmetric=symmetric,
        num_bins=_BINS[method],
        num_quantized_bins=LEVELS,
        percentile=PERCENTILES[0],
        scenario="same",
    )
    session, samples = _open(_sampling(model, tensors)), [_sample(name) for name in tensors]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each step
        for values in parallel(lambda inputs: session.run(samples, dict(inputs)), faces, threads):
            collector.collect(dict(zip(tensors, values, strict=True)))  # while the next faces run
        options = {}
        for setting in settings_of(method):
            if method is Calibrator.PERCENTILE:
                collector.percentile = float(setting)
            found = collector.compute_collection_result()
            options[setting] = {name: _range(found[name][:2]) for name in tensors}
    return options


def _sampling(model: ModelProto, tensors: Sequence[str]) -> bytes:
    """Return ``model`` with samples of ``tensors`` as its only outputs: every k-th value of the large ones.

    Counting all values of all tensors takes ten times as long as computing them. The step is odd, so that a sample
    does not keep to a few columns.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    sizes = {name: math.prod(shape[1:]) for name, shape in shapes(model).items()}  # of one face
    del copy.graph.output[:]
    for name in tensors:
        step = max(1, sizes.get(name, 0) // SAMPLE) | 1
        ends = {"flat": [-1], "start": [0], "end": [np.iinfo(np.int64).max], "axis": [0], "step": [step]}
        prefix = f"{_sample(name)}_"
        numbers = {prefix + part: np.array(value, np.int64) for part, value in ends.items()}
        copy.graph.initializer.extend(numpy_helper.from_array(value, part) for part, value in numbers.items())
        copy.graph.node.append(helper.make_node("Reshape", [name, f"{prefix}flat"], [f"{prefix}values"]))
        sliced = [f"{prefix}{part}" for part in ("values", "start", "end", "axis", "step")]
        copy.graph.node.append(helper.make_node("Slice", sliced, [_sample(name)]))
        copy.graph.output.append(helper.make_tensor_value_info(_sample(name), TensorProto.FLOAT, None))
    return bytes(copy.SerializeToString())


def _sample(tensor: str) -> str:
    return f"{tensor}_sample"


def _open(model: bytes | Path) -> ort.InferenceSession:
    options = session_options(1)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _OneFace(CalibrationDataReader):  # type: ignore[misc]
    """The inputs of a stage for one face: the calibrator keeps all that one reader gives in memory."""

    def __init__(self, inputs: StageInputs) -> None:
        self.inputs: StageInputs | None = inputs

    def get_next(self) -> StageInputs | None:
        inputs, self.inputs = self.inputs, None
        return inputs


def _extremes(
    model: ModelProto, tensors: Sequence[str], faces: Iterable[StageInputs], symmetric: bool
) -> dict[str, Range]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        plain, augmented = Path(folder) / "stage.onnx", Path(folder) / "augmented.onnx"
        onnx.save(_typed_only(model, tensors), plain)
        options = {"symmetric": symmetric}
        calibrator = create_calibrator(plain, None, str(augmented), CalibrationMethod.MinMax, extra_options=options)
        # Its own session has all optimisations off and takes twice as long; outputs are computed either way.
        calibrator.infer_session = _open(augmented)
        for inputs in faces:
            calibrator.collect_data(_OneFace(inputs))
        found = calibrator.compute_data()
    return {name: _range(found[name].range_value) for name in tensors}


def _range(values: Sequence[Any]) -> Range:
    low, high = (float(np.asarray(value).reshape(())) for value in values)
    return low, high


def _typed_only(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """Return a copy in which only ``tensors`` have a type: the calibrator calibrates what has one."""
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


def cached_ranges(path: Path, key: Mapping[str, Any], compute: Callable[[], RangeOptions]) -> RangeOptions:
    """Return the ranges in the JSON file ``path`` if they were computed under ``key``, else compute and keep them.

    The key holds all that decides the result: digests, method, versions; of JSON's types.

    Raises:
        UsageError: the file cannot be written.
    """
    with contextlib.suppress(InputError, ValueError, KeyError, TypeError, AttributeError):
        known = parse_json(read_file(path, MAX_TEXT))
        if known["key"] == key:
            return {
                option: {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
                for option, ranges in known["ranges"].items()
            }
        changed = ", ".join(name for name in key if known["key"].get(name) != key[name])
        logger.info(f"{path}: ranges are stale ({changed} changed); computing them anew")
    ranges = compute()
    with system_errors(UsageError, path, "cannot be written"):
        write_file(path, json.dumps({"key": key, "ranges": ranges}, indent=1).encode())
    return ranges
