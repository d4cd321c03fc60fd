"""Fast forms of 8-bit graphs: where they stand, and that they compute the same as the plain Q/DQ graph."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from showface.calibration import quantize as quantization
from showface.calibration.placement import default_float, layer_of, placed_tensors, quantizable
from showface.calibration.ranges import find_ranges
from showface.calibration.rewrites import cpu_forms
from showface.calibration.rewrites.cpu_forms import use_fast_forms
from showface.calibration.settings import Calibrator, Target
from showface.export.graph import constant_values, producers
from showface.runtime.stages import STAGES

STAGE = {stage.name: stage for stage in STAGES}


def run(graph, inputs):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the graph as it is written
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def in_fast_forms(plain, weights):
    fast = onnx.ModelProto()
    fast.CopyFrom(plain)
    use_fast_forms(fast, weights)
    return fast


@pytest.fixture(scope="module", params=["coarse", "refiner"])
def pair(request, graphs, three):
    """Return a stage's name, its plain Q/DQ graph, and the same graph in fast forms."""
    name = request.param
    graph, stage = graphs[name], STAGE[name]
    kept = default_float(graph, name, Target.CPU)
    groups = [group for group in quantizable(graph, name, Target.CPU) if group not in kept]
    inputs = ({tensor: face.tensors[tensor] for tensor in stage.inputs} for face in three)
    tensors = placed_tensors(graph, name, Target.CPU)
    ranges = find_ranges(graph, tensors, inputs, Calibrator.MINMAX, False, 1)["minmax"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "use_fast_forms", lambda model, weights: None)
        plain = quantization.quantize(graph, name, Target.CPU, groups, ranges)
    return name, plain, in_fast_forms(plain, constant_values(graph))


def test_computes_what_the_plain_graph_computes(pair, recorded, monkeypatch):
    """All forms but two to the last bits; these round by themselves, and have tests of their own."""
    name, plain, fast = pair
    onnx.checker.check_model(fast)
    face = next(iter(recorded))
    inputs = {tensor: face.tensors[tensor] for tensor in STAGE[name].inputs}
    expected = run(plain, inputs)
    monkeypatch.setattr(cpu_forms, "_elu_in_8_bits", lambda model: None)
    exact = in_fast_forms(plain, {})  # without float weights no kernel is summed
    assert len(exact.graph.node) != len(plain.graph.node)
    for values, same, near in zip(expected, run(exact, inputs), run(fast, inputs), strict=True):
        np.testing.assert_allclose(same, values, atol=1e-6)
        assert np.abs(near - values).mean() < 0.01 * np.abs(values).max()


def test_patterns_are_replaced(pair, graphs):
    name, plain, fast = pair
    operators = [node.op_type for node in fast.graph.node]
    source = producers(fast)
    for node in fast.graph.node:
        if node.op_type == "Conv" and node.input[1] in source:
            weight = next(t for t in fast.graph.initializer if t.name == source[node.input[1]].input[0])
            strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
            assert weight.dims[1] % 4 == 0 or max(strides) > 1
    small = [node.name for node in fast.graph.node if node.name.endswith("_subpixel_00")]
    if name == "coarse":
        joined = [node for node in graphs["coarse"].graph.node if node.name.endswith("_parts")]
        assert len([convolution for convolution in small if "_part0_" in convolution]) == len(joined) > 0
    if name == "refiner":
        elus = [node for node in plain.graph.node if node.op_type == "Exp"]
        assert [operators.count(operator) for operator in ("Min", "Max", "Exp")] == [len(elus)] * 3
        assert elus
        assert "Neg" not in operators  # a minimum in float would need it
        before = producers(plain)
        resized = [n for n in plain.graph.node if n.op_type == "Resize"]
        resized = {n.name: layer_of(n) for n in resized if before[n.input[0]].op_type == "DequantizeLinear"}
        assert set(resized.values()) == {"detail.decode2.spade1", "detail.decode2.spade2"}
        for node in fast.graph.node:
            if node.name in resized:
                assert source[source[node.input[0]].input[0]].op_type == "Reshape"  # held in the order of pixels


def elu_graph(constants, read="x_d", one=1.0):
    """Return max(x, 0) + (exp(-max(-``read``, 0)) - ``one``) of 256 values as the quantiser leaves it."""
    nodes = []

    def pair(name, scale):
        nodes.append(helper.make_node("QuantizeLinear", [name, scale, f"{scale}_zero"], [f"{name}_q"], f"{name}_q"))
        reads = [f"{name}_q", scale, f"{scale}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", reads, [f"{name}_d"], f"{name}_d"))

    def node(operator, inputs, output):
        nodes.append(helper.make_node(operator, inputs, [output], output))

    pair("x", "step")
    node("Relu", ["x_d"], "above")
    pair("above", "out")
    node("Neg", [read], "n")
    node("Relu", ["n"], "m")
    node("Neg", ["m"], "below")
    node("Exp", ["below"], "e")
    node("Sub", ["e", "one"], "less")
    pair("less", "out")
    node("Add", ["above_d", "less_d"], "elu")
    pair("elu", "out")
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [256]) for name in ("x", "elu_d")]
    values = {**constants, "one": np.float32(one)}
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "elu", edges[:1], edges[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


LOW, HIGH, STEP, OUT = -4.0, 6.0, np.float32(10 / 255), np.float32(7 / 255)
SCALES = {"step": STEP, "step_zero": np.uint8(102), "out": OUT, "out_zero": np.uint8(36)}


def test_elu_in_8_bits_against_numpy():
    model = elu_graph(SCALES)
    use_fast_forms(model, {})
    assert "Neg" not in {node.op_type for node in model.graph.node}
    values = np.linspace(LOW, HIGH, 256, dtype=np.float32)
    x = np.rint(values / STEP) * STEP
    expected = np.where(x > 0, x, np.expm1(x))
    assert np.abs(run(model, {"x": values})[0] - expected).max() <= 0.5 * OUT + 0.5 / 255 + 1e-6


@pytest.mark.parametrize("change", [{"one": 2.0}, {"read": "x"}], ids=["another constant", "another tensor"])
def test_other_sums_are_left_as_they_are(change):
    model = elu_graph(SCALES, **change)
    before = model.SerializeToString()
    use_fast_forms(model, {})
    assert model.SerializeToString() == before
