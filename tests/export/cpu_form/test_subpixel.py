"""Convolutions of enlarged features at the small size: what they compute, against PyTorch, and which stay."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from fixtures.graphs import graph_of, normal, operators, rewritten, run
from onnx import TensorProto, helper

from showface.export.cpu_form.subpixel import convolve_small, phase_kernel, split_joined_inputs

BATCH, CHANNELS, BESIDE, OUT, HEIGHT, WIDTH = 3, 6, 5, 4, 5, 7
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
PADS = {"pads": [1, 1, 1, 1]}


def enlarging(joined=None, *, bias=True, scale=2, shown=False, resize=None, convolution=None):
    """Return a graph that enlarges the first channels of ``x``, joins the rest, and convolves.

    Args:
        joined: None convolves the enlarged features alone; "front" and "behind" say where they stand.
        bias: whether the convolution has one.
        scale: of the enlargement.
        shown: whether the enlarged features are an output too.
        resize: attributes of the enlargement that differ from ``NEAREST``.
        convolution: attributes of the convolution beside ``PADS``.
    """
    inputs = CHANNELS + (BESIDE if joined else 0)
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["large"], "enlarge", **{**NEAREST, **(resize or {})})]
    names = {"front": ["large", "beside"], "behind": ["beside", "large"]}.get(joined)
    if names:
        nodes.append(helper.make_node("Concat", names, ["joined"], "join", axis=1))
    reads = ["joined" if names else "large", "layer.weight", *(["layer.bias"] if bias else [])]
    nodes.append(helper.make_node("Conv", reads, ["y"], "layer", **{**PADS, **(convolution or {})}))
    size = [scale * HEIGHT, scale * WIDTH]
    shapes = {
        "x": ["b", CHANNELS, HEIGHT, WIDTH],
        "large": ["b", CHANNELS, *size],
        "y": ["b", OUT, *size] if not convolution else ["b", OUT, None, None],
    }
    if joined:
        shapes["beside"] = ["b", BESIDE, *size]
    constants = {
        "scales": np.array([1, 1, scale, scale], np.float32),
        "layer.weight": normal(OUT, inputs, 3, 3, seed=1),
        "layer.bias": normal(OUT, seed=2),
        "beside": np.repeat(normal(1, BESIDE, *size, seed=3), BATCH, axis=0),
    }
    return graph_of(nodes, shapes, ["y", "large"] if shown else ["y"], **constants)


@pytest.mark.parametrize("joined", [None, "front", "behind"])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_pytorch(joined, bias):
    x = normal(BATCH, CHANNELS, HEIGHT, WIDTH)
    model = enlarging(joined, bias=bias)
    result = rewritten(model, split_joined_inputs, convolve_small)
    assert "Resize" not in operators(result)
    assert operators(result).count("Conv") == (5 if joined else 4)
    constants = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer}
    large = torch.from_numpy(x).double().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    parts = {"front": [large, constants["beside"]], "behind": [constants["beside"], large]}.get(joined, [large])
    wanted = F.conv2d(
        torch.cat(parts, 1), constants["layer.weight"], constants["layer.bias"] if bias else None, padding=1
    )
    np.testing.assert_allclose(run(result, x)[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 3},
        {"shown": True},
        {"resize": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}},
        {"resize": {"nearest_mode": "ceil"}},
        {"convolution": {"pads": [0, 0, 0, 0]}},
        {"convolution": {"strides": [2, 2]}},
        {"convolution": {"dilations": [2, 2]}},
    ],
    ids=str,
)
def test_what_only_looks_alike_stays_as_it_is(options):
    model = enlarging(**options)
    assert operators(rewritten(model, split_joined_inputs, convolve_small)) == operators(model)


@pytest.mark.parametrize("changed", ["axis", "weight is shared", "joined is read twice", "three are joined"])
def test_other_joined_inputs_are_not_split(changed):
    model = enlarging("front")
    join = next(node for node in model.graph.node if node.op_type == "Concat")
    if changed == "axis":
        join.attribute[0].i = 2
    elif changed == "three are joined":
        join.input.append("beside")
    else:
        name = "layer.weight" if changed == "weight is shared" else "joined"
        model.graph.node.append(helper.make_node("Identity", [name], ["too"], "too"))
        model.graph.output.append(helper.make_tensor_value_info("too", TensorProto.FLOAT, None))
    before = model.SerializeToString(deterministic=True)
    split_joined_inputs(model)
    assert model.SerializeToString(deterministic=True) == before


def test_phase_kernels_are_sums_of_taps():
    kernel = np.arange(9.0).reshape(1, 1, 3, 3)
    assert phase_kernel(kernel, 0, 0).tolist() == [[[[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]]]
    assert phase_kernel(kernel, 1, 0).tolist() == [[[[0 + 3, 1 + 2 + 4 + 5], [6, 7 + 8]]]]
