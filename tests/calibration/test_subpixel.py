"""Convolutions of repeated pixels: what they compute, against PyTorch, and which are left as they are."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from showface.calibration.graphs import constant_values, producers
from showface.calibration.placement import Target, placed_tensors, quantizable
from showface.calibration.quantize import quantize
from showface.calibration.ranges import Method, find_ranges
from showface.calibration.subpixel import part_joined_inputs
from showface.runtime.stages import STAGES

CHANNELS, OUT, HEIGHT, WIDTH = 8, 4, 6, 5
STAGE = {stage.name: stage for stage in STAGES}


def enlarging(*, first=False, side=3, scale=2, twice=False):
    """Return a float graph: ``first`` a convolution, a nearest enlargement, and a convolution of ``side``² pixels."""
    random = np.random.default_rng(3)
    weights = {
        "first.weight": random.normal(0, 0.5, (CHANNELS, CHANNELS, 1, 1)),
        "layer.weight": random.normal(0, 0.3, (OUT, CHANNELS, side, side)),
        "layer.bias": random.normal(0, 1, OUT),
        "scales": np.array([1, 1, scale, scale]),
    }
    large = (scale * HEIGHT, scale * WIDTH)
    nodes = [helper.make_node("Conv", ["x", "first.weight"], ["y"], "first")] if first else []
    kind = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes.append(helper.make_node("Resize", ["y" if first else "x", "", "scales"], ["large"], "enlarge", **kind))
    options = {"pads": [side // 2] * 4, "kernel_shape": [side, side]}
    nodes.append(helper.make_node("Conv", ["large", "layer.weight", "layer.bias"], ["z"], "layer", **options))
    result = "z"
    if twice:
        nodes += [helper.make_node("Relu", ["large"], ["relu"], "relu")]
        nodes += [helper.make_node("ReduceMean", ["relu"], ["mean"], "mean", keepdims=1)]
        nodes += [helper.make_node("Add", ["z", "mean"], ["sum"], "sum")]
        result = "sum"
    nodes.append(helper.make_node("Identity", [result], ["out"], "last"))
    edges = {"x": (1, CHANNELS, HEIGHT, WIDTH), "large": (1, CHANNELS, *large), "out": (1, OUT, *large)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in edges.items()}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["out"]], constants, value_info=[values["large"]])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def in_8_bits(model, x):
    groups = quantizable(model, "refiner", Target.CPU)
    tensors = placed_tensors(model, "refiner", Target.CPU)
    ranges = find_ranges(model, tensors, [{"x": x}], Method.MINMAX, False, 1)[str(Method.MINMAX)]
    return quantize(model, "refiner", Target.CPU, list(groups), ranges), ranges


def run(model, inputs, outputs=None):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the graph as it is written
    return ort.InferenceSession(model.SerializeToString(), options).run(outputs, inputs)


def convolutions(model, side):
    """Return the 8-bit convolutions of ``side``² pixels."""
    constants, source = constant_values(model), producers(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in source]
    return [node for node in convolutions if constants[source[node.input[1]].input[0]].shape[2:] == (side, side)]


@pytest.mark.parametrize("first", [False, True])
def test_a_convolution_before_the_repetition_against_pytorch(first):
    """It differs from the float convolution of the same 8-bit pixels by the rounding of weights and result alone."""
    x = np.random.default_rng(4).normal(0, 2, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    model = enlarging(first=first)
    weights = {name: torch.tensor(value).double() for name, value in constant_values(model).items()}
    result, ranges = in_8_bits(model, x)
    onnx.checker.check_model(result)
    assert len(convolutions(result, 2)) == 4
    assert not convolutions(result, 3)
    assert not [node for node in result.graph.node if node.op_type in ("Resize", "Tile")]

    small = producers(result)["enlarge_q" if not first else "y_QuantizeLinear_Output"]
    result.graph.output.append(helper.make_tensor_value_info(small.output[0], TensorProto.UINT8, None))
    out, pixels = run(result, {"x": x})
    constants = constant_values(result)
    scale, zero = (constants[name].astype(np.float64) for name in small.input[1:])
    seen = torch.from_numpy((pixels.astype(np.float64) - zero) * scale)
    large = seen.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(large, weights["layer.weight"], weights["layer.bias"], padding=1)
    # Four taps at most fall on one pixel, so that a step of a weight is at most 4 · max / 64.
    step = 4 * weights["layer.weight"].abs().amax(dim=(1, 2, 3)) / 64
    pixels_seen = F.conv2d(large.abs(), torch.ones(1, CHANNELS, 3, 3).double(), padding=1)
    low, high = ranges["z"]
    bound = 0.5 * step[:, None, None] * pixels_seen[0] + 0.51 * (high - low) / 255 + 1e-3
    error = (torch.from_numpy(out[0]).double() - expected.clamp(low, high)[0]).abs()
    assert bool((error <= bound).all())
    assert float(error.mean()) < 0.02 * float(expected.abs().mean())


@pytest.mark.parametrize("changed", [{"side": 5}, {"scale": 3}, {"twice": True}])
def test_other_convolutions_are_left_as_they_are(changed):
    x = np.random.default_rng(5).normal(0, 2, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    model = enlarging(first=True, **changed)
    result, _ = in_8_bits(model, x)
    assert len(convolutions(result, changed.get("side", 3))) == 1
    expected = run(model, {"x": x})[0]
    assert np.abs(run(result, {"x": x})[0] - expected).mean() < 0.05 * np.abs(expected).mean()


def test_joined_inputs_are_parted_and_the_layers_keep_their_names(graphs, three):
    graph = onnx.ModelProto()
    graph.CopyFrom(graphs["coarse"])
    part_joined_inputs(graph)
    onnx.checker.check_model(graph)
    assert "Concat" in {node.op_type for node in graphs["coarse"].graph.node}
    assert "Concat" not in {node.op_type for node in graph.graph.node}
    groups = [list(quantizable(each, "coarse", Target.CPU)) for each in (graphs["coarse"], graph)]
    assert groups[0] == groups[1]
    inputs = {name: three[2].tensors[name] for name in STAGE["coarse"].inputs}
    expected, found = (run(each, inputs)[0] for each in (graphs["coarse"], graph))
    np.testing.assert_allclose(found, expected, atol=1e-5)
