"""Partial convolutions: the same function without their normalisation, and which are left as they are."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from showface.export.cpu_form.partial import ready_partial_convolutions

CHANNELS, OUT, SIDE = 4, 6, 8


def partial(*, shared=False, shown=False, mask="Greater", rectifier="Relu", parts=1):
    """Return a graph of a partial convolution, normalisation, rectifier and mask.

    Args:
        shared: whether another convolution reads the weight too.
        shown: whether what comes out of the scaling is an output too.
        mask: operator that makes what the features are multiplied by at the end.
        rectifier: operator before it.
        parts: convolutions whose sum is scaled.
    """
    random = np.random.default_rng(5)
    numbers = {
        **{f"layer.part{k}.weight": random.normal(0, 0.5, (OUT, CHANNELS, 3, 3)) for k in range(parts)},
        "bias": random.normal(0, 1, (1, OUT, 1, 1)),
        "gain": random.uniform(0.2, 3, OUT),
        "shift": random.normal(0, 1, OUT),
        "mean": random.normal(0, 1, OUT),
        "variance": random.uniform(0.1, 4, OUT),
        "half": np.array(0.5),
    }
    node = helper.make_node
    names = [f"layer.part{k}.weight" for k in range(parts)]
    convolutions = [node("Conv", ["x", name], [f"c{k}"], f"c{k}", pads=[1] * 4) for k, name in enumerate(names)]
    if parts == 2:
        convolutions.append(node("Add", ["c0", "c1"], ["c"], "sum"))
    nodes = [
        *convolutions,
        node("Mul", ["c" if parts == 2 else "c0", "scale"], ["s"], "s"),
        node("Add", ["s", "bias"], ["b"], "b"),
        node("BatchNormalization", ["b", "gain", "shift", "mean", "variance"], ["n"], "n", epsilon=1e-3),
        node(rectifier, ["n"], ["r"], "r"),
    ]
    if mask == "Greater":
        nodes += [node("Greater", ["scale", "half"], ["g"], "g"), node("Cast", ["g"], ["m"], "m", to=TensorProto.FLOAT)]
    else:
        nodes.append(node(mask, ["scale"], ["m"], "m"))
    nodes.append(node("Mul", ["r", "m"], ["y"], "y"))
    outputs = ["y", "s"] if shown else ["y"]
    if shared:
        nodes.append(node("Conv", ["x", "layer.part0.weight"], ["other"], "other", pads=[1] * 4))
        outputs.append("other")
    shapes = {"x": CHANNELS, "scale": 1, "s": OUT, "y": OUT, "other": OUT, "c": OUT, "c0": OUT, "c1": OUT, "m": 1}
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", channels, SIDE, SIDE])
        for name, channels in shapes.items()
    }
    inner = [info[name] for name in ("s", "c", "c0", "c1", "m") if name not in outputs]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in numbers.items()]
    ends = [info["x"], info["scale"]], [info[name] for name in outputs]
    graph = helper.make_graph(nodes, "g", *ends, constants, value_info=inner)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def rewritten(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ready_partial_convolutions(copy)
    onnx.checker.check_model(copy)
    return copy


def run(model):
    random = np.random.default_rng(6)
    x, scale = random.normal(0, 1, (2, CHANNELS, SIDE, SIDE)), random.uniform(-0.5, 2, (2, 1, SIDE, SIDE))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.astype(np.float32), "scale": scale.astype(np.float32)})


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("rectifier", ["Relu", "LeakyRelu"])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_function_is_the_same(rectifier, parts):
    model = partial(rectifier=rectifier, parts=parts)
    new = rewritten(model)
    assert "BatchNormalization" not in operators(new)
    assert operators(new)[-1] == rectifier  # after the mask, and before what quantises it
    np.testing.assert_allclose(run(new)[0], run(model)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"shared": True}, {"shown": True}])
def test_what_others_see_keeps_its_normalisation(options):
    model = partial(**options)
    new = rewritten(model)
    assert "BatchNormalization" in operators(new)
    for after, before in zip(run(new), run(model), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_factor_that_is_no_mask_stays_behind_the_rectifier():
    """It may be negative: a rectifier behind it would cut other values."""
    new = rewritten(partial(mask="Neg"))
    assert operators(new)[-1] == "Mul"
    np.testing.assert_allclose(run(new)[0], run(partial(mask="Neg"))[0], rtol=1e-5, atol=1e-5)
