"""Convolutions of few outputs and of unshuffled pixels: what they compute, against PyTorch, and which stay."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.graphs import graph_of, normal, operators, rewritten, run
from onnx import TensorProto, helper, numpy_helper

from showface.export.cpu_form.convolutions import convolve_rows, convolve_shuffled

BATCH, CHANNELS, HEIGHT, WIDTH = 2, 5, 16, 11


def convolving(outputs, *, side=3, stride=1, pads=(1, 1, 1, 1), height=HEIGHT, bias=True, **attributes):
    """Return a graph of one convolution, its kernel and bias."""
    group = attributes.get("group", 1)
    kernel, shift = normal(outputs, CHANNELS // group, side, side, seed=1), normal(outputs, seed=2)
    options = {"pads": list(pads), "strides": [stride] * 2, **attributes}
    reads = ["x", "layer.weight", *(["layer.bias"] if bias else [])]
    dilation = attributes.get("dilations", [1, 1])[0]
    size = [
        (length + pads[k] + pads[k + 2] - dilation * (side - 1) - 1) // stride + 1
        for k, length in enumerate((height, WIDTH))
    ]
    node = helper.make_node("Conv", reads, ["y"], "layer", **options)
    shapes = {"x": ["b", CHANNELS, height, WIDTH], "y": ["b", outputs, *size]}
    return graph_of([node], shapes, ["y"], **{"layer.weight": kernel, "layer.bias": shift}), kernel, shift


def weights_of(model):
    read = {name for node in model.graph.node for name in node.input}
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in read}


@pytest.mark.parametrize(("outputs", "rows"), [(1, 8), (2, 8), (3, 4), (4, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_equal_pytorch(outputs, rows, stride, bias):
    model, kernel, shift = convolving(outputs, stride=stride, bias=bias)
    result = rewritten(model, convolve_rows)
    x = normal(BATCH, CHANNELS, HEIGHT, WIDTH)
    tall = weights_of(result)["layer.rows.weight"]
    assert tall.shape == (outputs * rows, CHANNELS, 3 + stride * (rows - 1), 3)
    wanted = F.conv2d(
        torch.from_numpy(x).double(),
        torch.from_numpy(kernel).double(),
        torch.from_numpy(shift).double() if bias else None,
        stride=stride,
        padding=1,
    )
    np.testing.assert_allclose(run(result, x)[0], wanted, rtol=1e-6, atol=1e-5)


def test_rows_of_uneven_pads_and_a_larger_kernel():
    model, kernel, shift = convolving(1, side=5, pads=(3, 0, 1, 2))
    result = rewritten(model, convolve_rows)
    x = normal(BATCH, CHANNELS, HEIGHT, WIDTH)
    padded = F.pad(torch.from_numpy(x).double(), (0, 2, 3, 1))
    wanted = F.conv2d(padded, torch.from_numpy(kernel).double(), torch.from_numpy(shift).double())
    assert "Transpose" in operators(result)
    np.testing.assert_allclose(run(result, x)[0], wanted, rtol=1e-6, atol=1e-5)


def test_rows_are_as_many_as_divide_the_height():
    result = rewritten(convolving(1, height=12)[0], convolve_rows)
    assert weights_of(result)["layer.rows.weight"].shape[0] == 4


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": 5},
        {"outputs": 1, "height": 15},
        {"outputs": 1, "side": 1, "pads": (0, 0, 0, 0)},
        {"outputs": 5, "group": 5},
        {"outputs": 1, "dilations": [2, 2], "pads": (2, 2, 2, 2)},
    ],
    ids=str,
)
def test_what_would_gain_nothing_or_be_another_function_stays(options):
    model = convolving(**options)[0]
    assert operators(rewritten(model, convolve_rows)) == operators(model)


def test_a_kernel_that_is_computed_stays():
    model = convolving(1)[0]
    model.graph.node.insert(0, helper.make_node("Identity", ["layer.weight"], ["same"], "same"))
    model.graph.node[1].input[1] = "same"
    assert operators(rewritten(model, convolve_rows)) == operators(model)


@pytest.mark.parametrize("rewrite", [convolve_rows, convolve_shuffled])
def test_a_weight_that_two_convolutions_share_stays(rewrite):
    model = convolving(1)[0] if rewrite is convolve_rows else unshuffling()[0]
    other = model.graph.node[-1]
    again = helper.make_node("Conv", [other.input[0], other.input[1]], ["again"], "again", pads=[1] * 4)
    model.graph.node.append(again)
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["b", None, None, None]))
    assert operators(rewritten(model, rewrite)) == operators(model)


FACTOR = 2


def unshuffling(perm=(0, 1, 3, 5, 2, 4), factor=FACTOR, **attributes):
    """Return a graph that unshuffles ``x`` and convolves it, and the kernel."""
    height, width, outputs = 8, 12, 7
    kernel = normal(outputs, CHANNELS * factor**2, 3, 3, seed=1)
    nodes = [
        helper.make_node("Reshape", ["x", "apart"], ["a"], "a"),
        helper.make_node("Transpose", ["a"], ["t"], "t", perm=list(perm)),
        helper.make_node("Reshape", ["t", "whole"], ["u"], "u"),
        helper.make_node("Conv", ["u", "layer.weight", "layer.bias"], ["y"], "layer", **attributes),
    ]
    small = [height // factor, width // factor]
    shapes = {
        "x": ["b", CHANNELS, height, width],
        "u": ["b", CHANNELS * factor**2, *small],
        "y": ["b", outputs, None, None],
    }
    constants = {
        "apart": np.array([0, CHANNELS, small[0], factor, small[1], factor]),
        "whole": np.array([0, CHANNELS * factor**2, *small]),
        "layer.weight": kernel,
        "layer.bias": normal(outputs, seed=2),
    }
    return graph_of(nodes, shapes, ["y"], **constants), kernel, constants["layer.bias"], (height, width)


@pytest.mark.parametrize("attributes", [{"pads": [1] * 4}, {}, {"pads": [1, 0, 2, 1], "strides": [2, 1]}], ids=str)
def test_unshuffled_pixels_against_pytorch(attributes):
    model, kernel, bias, size = unshuffling(**attributes)
    result = rewritten(model, convolve_shuffled)
    assert operators(result) == ["Conv"]
    x = normal(BATCH, CHANNELS, *size)
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    small = F.pad(F.pixel_unshuffle(torch.from_numpy(x).double(), FACTOR), (left, right, top, bottom))
    wanted = F.conv2d(
        small,
        torch.from_numpy(kernel).double(),
        torch.from_numpy(bias).double(),
        stride=attributes.get("strides", [1, 1]),
    )
    np.testing.assert_allclose(run(result, x)[0], wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("options", [{"perm": (0, 1, 5, 3, 2, 4)}, {"dilations": [2, 2]}], ids=str)
def test_other_orders_and_kernels_with_holes_stay(options):
    model = unshuffling(**options)[0]
    assert operators(rewritten(model, convolve_shuffled)) == operators(model)
