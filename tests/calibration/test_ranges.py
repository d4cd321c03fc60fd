"""Each calibrator against a direct computation on the recorded values; the cache and its key."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.utils import Extractor

from showface.calibration import ranges
from showface.calibration.ranges import cached_ranges, collapsed, find_ranges
from showface.calibration.settings import Calibrator

STAGE = ("image", "mask")  # the coarse stage's inputs


def values_of(graph, name, three):
    """Return all recorded values of a tensor inside the coarse stage, computed by a session of our own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    copy.graph.output.append(next(value for value in graph.graph.value_info if value.name == name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run([name], {k: face.tensors[k] for k in STAGE})[0].ravel() for face in three]
    return np.concatenate(runs)


@pytest.fixture(scope="module")
def graph(graphs):
    """Return the coarse stage up to its third convolution: ONNX Runtime searches cuts for every tensor that it sees."""
    outputs = [node.output[0] for node in graphs["coarse"].graph.node if node.op_type == "Conv"]
    return Extractor(graphs["coarse"]).extract_model(list(STAGE), [outputs[2]])


@pytest.fixture(scope="module")
def tensor(graph):
    """Return the output of the second convolution, which has both signs."""
    return [node.output[0] for node in graph.graph.node if node.op_type == "Conv"][1]


@pytest.fixture(scope="module")
def values(graph, tensor, three):
    return values_of(graph, tensor, three)


def found(graph, tensor, three, method, symmetric=False):
    inputs = ({name: face.tensors[name] for name in STAGE} for face in three)
    options = find_ranges(graph, [tensor], inputs, method, symmetric, 1)
    return next(iter(options.values()))[tensor]


def test_minmax(graph, tensor, three, values):
    assert found(graph, tensor, three, Calibrator.MINMAX) == pytest.approx((values.min(), values.max()), rel=1e-5)
    bound = np.abs(values).max()
    assert found(graph, tensor, three, Calibrator.MINMAX, True) == pytest.approx((-bound, bound), rel=1e-5)


def share_above(values, bound):
    return float((values > bound).mean())


def test_percentile(graph, tensor, three, values):
    """Of all values 0.005 % lie beyond each end, and 0.01 % beyond a symmetric one, to the width of a bin."""
    width = 2 * np.abs(values).max() / 1000
    low, high = found(graph, tensor, three, Calibrator.PERCENTILE)
    for signed, end in ((values, high), (-values, -low)):
        assert share_above(signed, end + width) <= 5e-5 <= share_above(signed, end - width)
    assert (low, high) != pytest.approx((values.min(), values.max()), rel=1e-6)
    bound = max(np.abs(found(graph, tensor, three, Calibrator.PERCENTILE, True)))
    assert share_above(np.abs(values), bound + width) <= 1e-4 <= share_above(np.abs(values), bound - width)


def test_a_sample_gives_nearly_the_same_percentile(graph, tensor, three, values, monkeypatch):
    whole = found(graph, tensor, three, Calibrator.PERCENTILE)
    monkeypatch.setattr(ranges, "SAMPLE", values.size // len(three) // 3)
    sampled = found(graph, tensor, three, Calibrator.PERCENTILE)
    assert sampled != whole
    assert sampled == pytest.approx(whole, abs=0.1 * float(np.ptp(values)))


def test_percentiles_are_nested(graph, tensor, three):
    inputs = ({name: face.tensors[name] for name in STAGE} for face in three)
    options = find_ranges(graph, [tensor], inputs, Calibrator.PERCENTILE, False, 1)
    assert list(options) == [str(percentile) for percentile in ranges.PERCENTILES]
    widths = [high - low for low, high in (option[tensor] for option in options.values())]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


def smooth(counts):
    """Give empty bins a little of what the others hold, as the calibrator's paper does for its logarithms."""
    empty = counts == 0
    taken = 1e-4 * empty.sum() / (~empty).sum()
    return np.where(empty, 1e-4, counts - taken)


def divergence(histogram, half, levels=128):
    """Return the Kullback-Leibler divergence when the middle 2·half + 1 bins are kept and quantised to ``levels``."""
    middle = len(histogram) // 2
    start, end = middle - half, min(middle + half + 1, len(histogram))
    kept = histogram[start:end]
    clipped = kept.copy()
    clipped[0] += histogram[:start].sum()
    clipped[-1] += histogram[end:].sum()
    merged = len(kept) // levels
    level = np.minimum(np.arange(len(kept)) // merged, levels - 1)
    total = np.bincount(level, kept, levels)
    counted = np.arange(len(kept)) < merged * levels  # the rest of an uneven split is in no level's width
    occupied = np.bincount(level[counted], clipped[counted] > 0, levels)
    spread = np.where(counted & (occupied[level] > 0), (total // np.maximum(occupied, 1))[level], 0)
    p, q = (smooth(part) / smooth(part).sum() for part in (clipped, spread))
    return float((p * np.log(p / q)).sum())


def test_entropy(graph, tensor, three):
    first = [three[0]]
    values = values_of(graph, tensor, first)
    bound = np.abs(values).max()
    histogram, edges = np.histogram(values, 256, (-bound, bound))
    costs = [divergence(histogram, half) for half in range(64, 129)]
    half = 64 + int(np.argmin(costs))
    expected = max(edges[128 - half], values.min()), min(edges[min(129 + half, 256)], values.max())
    assert found(graph, tensor, first, Calibrator.ENTROPY) == pytest.approx(expected, rel=1e-4)
    assert np.ptp(costs) > 0  # there was something to choose


def test_collapsed_ranges_are_named():
    assert collapsed({"a": (0.0, 1.0), "b": (0.5, 0.5), "c": (0.0, 0.0)}) == ["b", "c"]


def test_cache_is_reused_under_its_key_only(tmp_path, caplog):
    path, runs = tmp_path / "ranges.json", []
    caplog.set_level("INFO", "showface")

    def compute():
        runs.append(1)
        return {"minmax": {"x": (-1.0, float(len(runs)))}}

    key = {"onnx": "1", "data": "2", "method": "minmax", "versions": {"onnxruntime": "1"}}
    assert cached_ranges(path, key, compute) == {"minmax": {"x": (-1.0, 1.0)}}
    assert cached_ranges(path, key, compute) == {"minmax": {"x": (-1.0, 1.0)}}
    assert not caplog.messages
    assert cached_ranges(path, {**key, "data": "3"}, compute) == {"minmax": {"x": (-1.0, 2.0)}}
    assert caplog.messages == [f"{path}: ranges are stale (data changed); computing them anew"]
    path.write_text("{")
    assert cached_ranges(path, key, compute) == {"minmax": {"x": (-1.0, 3.0)}}
