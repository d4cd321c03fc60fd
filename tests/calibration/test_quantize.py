"""Q/DQ graphs: where the pairs stand, what the weights are, and how far quantise-dequantise is from numpy."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from showface.calibration.placement import RULES, default_float, layer_of, placed_nodes, quantizable
from showface.calibration.rewrites.float_graph import float_graph
from showface.calibration.settings import Target
from showface.export.graph import producers
from showface.runtime.errors import UsageError
from showface.runtime.stages import STAGES
from showface.training.networks.layers import GatedResBlock, SpadeResBlock

STAGE = {stage.name: stage for stage in STAGES}


def scale_and_zero(graph, dequantize):
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    return constants[dequantize.input[1]], constants[dequantize.input[2]]


def test_casts_are_folded(graphs):
    for graph in graphs.values():
        constants = {tensor.name for tensor in graph.graph.initializer}
        assert not [n for n in graph.graph.node if n.op_type == "Cast" and n.input[0] in constants]
        assert all(t.data_type != TensorProto.FLOAT16 for t in graph.graph.initializer)


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("name", ["coarse", "refiner"])
def test_float_graphs_compute_what_is_stored(name, target, narrow_bundle, float_graphs, three):
    graph, outputs = float_graphs[target][name], STAGE[name].outputs
    constants = {tensor.name for tensor in graph.graph.initializer}
    assert constants == {edge for node in graph.graph.node for edge in node.input if edge in constants}
    inputs = {tensor: three[0].tensors[tensor] for tensor in STAGE[name].inputs}
    before, after = (
        ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(list(outputs), inputs)[0]
        for data in ((narrow_bundle / f"{name}.onnx").read_bytes(), graph.SerializeToString())
    )
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("name", list(STAGE))
def test_edges_that_carry_qdq(name, target, made, float_graphs):
    graphs = float_graphs[target]
    graph, _ = made(STAGE[name], target)
    source = producers(graph)
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    kept = default_float(graphs[name], name, target)
    floats = {n.name for group in kept for n in quantizable(graphs[name], name, target)[group]}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            pair = [source.get(edge) for edge in node.input[:2]]
            quantized = [p is not None and p.op_type == "DequantizeLinear" for p in pair]
            if node.name in floats:  # what it reads may come out of a quantised layer
                assert not quantized[1], node.name
                continue
            assert quantized == [True, True], node.name
            weight = constants[pair[1].input[0]]
            scales, zeros = scale_and_zero(graph, pair[1])
            assert weight.data_type == TensorProto.INT8
            assert scales.shape == (weight.dims[0],)  # one a channel
            assert not zeros.any()
            limit = 64 if RULES[target].reduced_range else 127
            assert np.abs(numpy_helper.to_array(weight).astype(int)).max() <= limit
            if len(node.input) > 2:
                bias = source.get(node.input[2])
                assert (bias is not None) == (target is Target.CPU)  # the engine keeps biases in float
            _, zero = scale_and_zero(graph, pair[0])
            assert zero.dtype == (np.uint8 if target is Target.CPU else np.int8)
            assert target is Target.CPU or zero == 0
        if node.op_type in ("Softmax", "ArgMax", "InstanceNormalization", "ReduceL2") and target is Target.TENSORRT:
            assert source[node.input[0]].op_type != "DequantizeLinear", node.name


def test_float_nodes_read_float_values_where_there_are_any(made, float_graphs):
    graph, _ = made(STAGE["coarse"], Target.TENSORRT)
    before = {node.name: node for node in float_graphs[Target.TENSORRT]["coarse"].graph.node}
    source = producers(graph)
    concatenations = [node for node in graph.graph.node if node.op_type == "Concat"]
    assert concatenations
    for node in concatenations:  # of features that a quantised convolution reads as well
        assert list(node.input) == list(before[node.name].input)
        assert all(source[edge].op_type != "DequantizeLinear" for edge in node.input)


def test_float_nodes_read_8_bits_where_there_is_nothing_else(made):
    graph, _ = made(STAGE["coarse"], Target.CPU)
    source = producers(graph)
    sums = [node for node in graph.graph.node if node.name.endswith("_parts")]  # of two convolutions in 8 bits
    assert sums
    for node in sums:
        assert [source[edge].op_type for edge in node.input] == ["DequantizeLinear"] * 2


def test_residual_adds_read_two_pairs_for_tensorrt(made, narrow_model):
    """Of every residual block of the refiner; sums with a constant, those of normalisations, stay as they are."""
    graph, _ = made(STAGE["refiner"], Target.TENSORRT)
    source, constants = producers(graph), {tensor.name for tensor in graph.graph.initializer}
    blocks = {name for name, m in narrow_model.refiner.named_modules() if isinstance(m, GatedResBlock | SpadeResBlock)}
    adds = [node for node in graph.graph.node if node.op_type == "Add"]
    residual = {layer_of(node): node for node in adds if layer_of(node) in blocks}
    assert set(residual) == blocks
    assert blocks
    for node in residual.values():
        assert [source[edge].op_type for edge in node.input] == ["DequantizeLinear"] * 2
    shifts = [node for node in adds if constants.intersection(node.input)]
    assert shifts
    for node in shifts:
        assert [source[edge].op_type for edge in node.input if edge in source] != ["DequantizeLinear"], node.name


def test_no_output_is_quantized_for_tensorrt(made):
    graph, _ = made(STAGE["refiner"], Target.TENSORRT)
    readers = {}
    for node in graph.graph.node:
        for edge in node.input:
            readers.setdefault(edge, []).append(node)
    scales = [n for n in graph.graph.node if n.op_type == "Conv" and layer_of(n).endswith("gamma")]
    assert scales
    assert all(r.op_type != "QuantizeLinear" for node in scales for r in readers[node.output[0]])


def test_last_convolutions_and_the_memory_stay_in_float(graphs):
    assert set(default_float(graphs["coarse"], "coarse", Target.CPU)) == {"to_rgb", "layout.weight"}
    assert set(default_float(graphs["refiner"], "refiner", Target.CPU)) == {"body.head", "detail.head"}
    products = quantizable(graphs["memory"], "memory", Target.TENSORRT)
    kept = default_float(graphs["memory"], "memory", Target.TENSORRT)
    matmuls = {n.name for n in graphs["memory"].graph.node if n.op_type == "MatMul"}
    assert matmuls == {n.name for group in kept for n in products[group] if n.op_type == "MatMul"}


def test_partial_convolutions_are_renormalised_in_float(graphs):
    kept = default_float(graphs["coarse"], "coarse", Target.CPU)
    groups = set(quantizable(graphs["coarse"], "coarse", Target.CPU)) - set(kept)
    nodes = placed_nodes(graphs["coarse"], "coarse", Target.CPU, groups)
    assert {node.op_type for node in nodes} == {"Conv"}


@pytest.mark.parametrize("target", Target)
def test_activation_error_against_numpy(target, made):
    """A Q/DQ pair of the graph, run by ONNX Runtime, equals rounding and clipping in numpy."""
    graph, ranges = made(STAGE["refiner"], target)
    source = producers(graph)
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    dequantize = source[first.input[0]]
    scale, zero = scale_and_zero(graph, dequantize)
    tensor = source[dequantize.input[0]].input[0]
    low, high = (min(ranges[tensor][0], 0.0), max(ranges[tensor][1], 0.0))
    expected = (high - low) / 255 if target is Target.CPU else max(-low, high) / 127
    assert float(scale) == pytest.approx(expected, rel=1e-2)
    values = np.linspace(1.2 * low, 1.2 * high, 1001, dtype=np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1001]) for name in ("x", "y")]
    pair = helper.make_graph(nodes, "pair", edges[:1], edges[1:], constants)
    model = helper.make_model(pair, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    limits = np.iinfo(zero.dtype)
    steps = np.clip(np.rint(values / scale) + int(zero), limits.min, limits.max)
    reference = (steps - int(zero)).astype(np.float32) * scale
    np.testing.assert_allclose(session.run(None, {"x": values})[0], reference, rtol=1e-6)
    inside = (values >= low) & (values <= high)
    assert np.abs(reference - values)[inside].max() <= 0.51 * float(scale) + 1e-6


def test_weight_error_against_numpy(made, graphs):
    graph, _ = made(STAGE["coarse"], Target.CPU)
    source = producers(graph)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graphs["coarse"].graph.initializer}
    name = "encoder.1.conv.conv.weight"
    node = next(n for n in graph.graph.node if n.op_type == "Conv" and n.input[1].startswith(name))
    pair = source[node.input[1]]
    scales, _ = scale_and_zero(graph, pair)
    found = stored[pair.input[0]].astype(np.float32) * scales[:, None, None, None]
    np.testing.assert_allclose(scales, np.abs(weights[name]).max(axis=(1, 2, 3)) / 64, rtol=0.03)
    assert (np.abs(found - weights[name]) <= 0.51 * scales[:, None, None, None]).all()


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("name", list(STAGE))
def test_runs_and_stays_near_the_float_stage(name, target, made, recorded):
    graph, _ = made(STAGE[name], target)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    face = next(iter(recorded))
    outputs = session.run(list(STAGE[name].outputs), {k: face.tensors[k] for k in STAGE[name].inputs})
    for key, value in zip(STAGE[name].outputs, outputs, strict=True):
        reference = face.tensors[key]
        if reference.dtype == np.int32:
            assert (value == reference).mean() > 0.5  # random weights have no clear labels
        else:
            spread = reference.std() + 1e-3
            assert 0 < np.abs(value - reference).mean() < 0.5 * spread


def test_quantized_graph_is_refused(made):
    graph, _ = made(STAGE["mrem"], Target.CPU)
    with pytest.raises(UsageError, match="stage mrem: is quantised already; calibrate the float bundle"):
        float_graph(graph.SerializeToString(), "mrem", Target.CPU)
