"""Convolutions in 8 bits of enlarged features: what they compute, against PyTorch, and which are left as they are."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from showface.calibration.placement import RULES, placed_tensors, quantizable
from showface.calibration.quantize import quantize
from showface.calibration.ranges import find_ranges
from showface.calibration.rewrites.float_graph import float_graph
from showface.calibration.settings import Calibrator, Target
from showface.export.graph import constant_values, producers
from showface.runtime.stages import STAGES

CHANNELS, OUT, HEIGHT, WIDTH = 8, 4, 6, 5
STAGE = {stage.name: stage for stage in STAGES}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
PLAIN = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "group": 1}


def enlarging(*, first=True, scale=2, shown=False, **convolution):
    """Return a float graph: ``first`` a convolution, a nearest enlargement, and a convolution.

    Args:
        first: whether the enlargement reads a convolution, which is in 8 bits, or the input.
        scale: of the enlargement.
        shown: whether the enlarged features are an output too.
        convolution: attributes that differ from ``PLAIN``; None removes one.
    """
    random = np.random.default_rng(3)
    options = {key: value for key, value in {**PLAIN, **convolution}.items() if value is not None}
    side, group = options.get("kernel_shape", [3, 3])[0], options.get("group", 1)
    weights = {
        "first.weight": random.normal(0, 0.5, (CHANNELS, CHANNELS, 1, 1)),
        "layer.weight": random.normal(0, 0.3, (OUT, CHANNELS // group, side, side)),
        "layer.bias": random.normal(0, 1, OUT),
        "scales": np.array([1, 1, scale, scale]),
    }
    nodes = [helper.make_node("Conv", ["x", "first.weight"], ["y"], "first", kernel_shape=[1, 1])] if first else []
    nodes.append(helper.make_node("Resize", ["y" if first else "x", "", "scales"], ["large"], "enlarge", **NEAREST))
    nodes.append(helper.make_node("Conv", ["large", "layer.weight", "layer.bias"], ["z"], "layer", **options))
    nodes.append(helper.make_node("Identity", ["z"], ["out"], "last"))
    large = ["b", CHANNELS, scale * HEIGHT, scale * WIDTH]
    shapes = {"x": ["b", CHANNELS, HEIGHT, WIDTH], "large": large, "out": ["b", OUT, None, None]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    outputs = [values["out"], values["large"]] if shown else [values["out"]]
    inner = [] if shown else [values["large"]]
    graph = helper.make_graph(nodes, "g", [values["x"]], outputs, constants, value_info=inner)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def pixels(batch, seed=4):
    return np.random.default_rng(seed).normal(0, 2, (batch, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)


def in_8_bits(model, x):
    tensors = placed_tensors(model, "refiner", Target.CPU)
    ranges = find_ranges(model, tensors, [{"x": x}], Calibrator.MINMAX, False, 1)[str(Calibrator.MINMAX)]
    return quantize(model, "refiner", Target.CPU, list(quantizable(model, "refiner", Target.CPU)), ranges), ranges


def run(model, inputs):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the graph as it is written
    return ort.InferenceSession(model.SerializeToString(), options).run(None, inputs)


def small_convolutions(model):
    """Return the 8-bit convolutions of 2×2 pixels."""
    constants, source = constant_values(model), producers(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in source]
    return [node for node in convolutions if constants[source[node.input[1]].input[0]].shape[2:] == (2, 2)]


@pytest.mark.parametrize("first", [False, True])
def test_a_convolution_at_the_small_size_against_pytorch(first):
    """It differs from the float convolution of the same 8-bit pixels by the rounding of weights and result alone."""
    model, x = enlarging(first=first), pixels(3)
    weights = {name: torch.tensor(value).double() for name, value in constant_values(model).items()}
    result, ranges = in_8_bits(model, x)
    onnx.checker.check_model(result)
    assert len(small_convolutions(result)) == 4
    assert not {"Resize", "Tile"} & {node.op_type for node in result.graph.node}

    small = producers(result)["y_QuantizeLinear_Output" if first else "enlarge_q"]
    result.graph.output.append(helper.make_tensor_value_info(small.output[0], TensorProto.UINT8, None))
    out, seen = run(result, {"x": x})
    constants = constant_values(result)
    scale, zero = (constants[name].astype(np.float64) for name in small.input[1:])
    large = torch.from_numpy((seen.astype(np.float64) - zero) * scale)
    large = large.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(large, weights["layer.weight"], weights["layer.bias"], padding=1)
    # Four taps at most fall on one pixel, so that a step of a weight is at most 4 · max / limit.
    limit = RULES[Target.CPU].weight_limit
    step = 4 * weights["layer.weight"].abs().amax(dim=(1, 2, 3)) / limit
    around = F.conv2d(large.abs(), torch.ones(1, CHANNELS, 3, 3).double(), padding=1)
    low, high = ranges["z"]
    bound = 0.5 * step[:, None, None] * around + 0.51 * (high - low) / 255 + 1e-3
    error = (torch.from_numpy(out).double() - expected.clamp(low, high)).abs()
    assert bool((error <= bound).all())
    assert float(error.mean()) < 0.02 * float(expected.abs().mean())


OTHERS = [
    {"scale": 3},
    {"shown": True},
    {"kernel_shape": [5, 5], "pads": [2] * 4},
    {"kernel_shape": [1, 1], "pads": [0] * 4},
    {"strides": [2, 2]},
    {"dilations": [2, 2]},
    {"group": 2},
    {"pads": None},
    {"pads": None, "auto_pad": "VALID"},
]


@pytest.mark.parametrize("changed", OTHERS, ids=str)
def test_other_convolutions_are_left_as_they_are(changed):
    model, x = enlarging(**changed), pixels(2)
    result, _ = in_8_bits(model, x)
    assert not small_convolutions(result)
    expected, found = run(model, {"x": x})[0], run(result, {"x": x})[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()


def test_attributes_that_are_left_out_have_their_defaults():
    model = enlarging(kernel_shape=None, strides=None, dilations=None, group=None)
    assert len(small_convolutions(in_8_bits(model, pixels(1))[0])) == 4


def test_a_bias_beyond_the_steps_of_its_kernel():
    """A channel of tiny weights: its bias in steps of input times weight would not fit 32 bits."""
    model, x = enlarging(), pixels(1)
    for tensor in model.graph.initializer:
        if tensor.name == "layer.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0] *= 1e-12
            values[1] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    result, _ = in_8_bits(model, x)
    assert len(small_convolutions(result)) == 4
    expected, found = run(model, {"x": x})[0], run(result, {"x": x})[0]
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=0.02 * np.abs(expected).max())


def test_joined_inputs_are_split_and_the_layers_keep_their_names(float_graphs, three):
    joined, split = (float_graphs[target]["coarse"] for target in (Target.TENSORRT, Target.CPU))
    onnx.checker.check_model(split)
    concatenations = [node.op_type for node in joined.graph.node].count("Concat")
    assert concatenations > 0
    assert "Concat" not in {node.op_type for node in split.graph.node}
    assert len([node for node in split.graph.node if node.name.endswith("_parts")]) == concatenations
    groups = [list(quantizable(each, "coarse", Target.CPU)) for each in (joined, split)]
    assert groups[0] == groups[1]
    inputs = {name: np.concatenate([face.tensors[name] for face in three]) for name in STAGE["coarse"].inputs}
    expected, found = (run(each, inputs)[0] for each in (joined, split))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("changed", ["axis", "shared", "read twice"])
def test_other_joined_inputs_are_left_as_they_are(narrow_bundle, changed):
    model = onnx.load(narrow_bundle / "coarse.onnx")
    whole = float_graph(model.SerializeToString(), "coarse", Target.TENSORRT)
    concatenations = [node for node in whole.graph.node if node.op_type == "Concat"]
    convolutions = {node.input[0]: node for node in whole.graph.node if node.op_type == "Conv"}
    for node in concatenations:
        if changed == "axis":
            next(entry for entry in node.attribute if entry.name == "axis").i = 2
        elif changed == "shared":
            weight = convolutions[node.output[0]].input[1]
            whole.graph.node.append(helper.make_node("Identity", [weight], [f"{weight}_too"], f"{weight}_too"))
            whole.graph.output.append(helper.make_tensor_value_info(f"{weight}_too", TensorProto.FLOAT, None))
        else:
            whole.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    split = float_graph(whole.SerializeToString(), "coarse", Target.CPU)
    assert [node.op_type for node in split.graph.node].count("Concat") == len(concatenations)
