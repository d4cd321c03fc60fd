"""The CPU form of a graph computes what the graph does, and what is not of its pattern stays as it is."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from showface.runtime.backends import onnxruntime, open_chain
from showface.runtime.backends.cpu_form import cpu_form, phase_kernel
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import open_bundle
from showface.runtime.stages import STAGES

SMALL, CHANNELS, OUTPUTS, BESIDE = (5, 7), 6, 4, 3
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
PADS = {"pads": [1, 1, 1, 1]}


def build(joined=None, resize=None, convolution=None, half=False, scales=(1, 1, 2, 2), bias=True):
    """Return a model that enlarges ``x``, joins it to ``z`` before or behind it, and convolves."""
    random = np.random.default_rng(0)
    inputs = CHANNELS + (BESIDE if joined else 0)
    kernel = random.normal(0, 0.2, (OUTPUTS, inputs, 3, 3)).astype(np.float16 if half else np.float32)
    constants = {"k": kernel, "scales": np.array(scales, np.float32), "b": random.normal(size=OUTPUTS)}
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["large"], **{**NEAREST, **(resize or {})})]
    names = {"front": ["z", "large"], "behind": ["large", "z"]}.get(joined)
    if names:
        nodes.append(helper.make_node("Concat", names, ["joined"], axis=1))
    if half:
        nodes.append(helper.make_node("Cast", ["k"], ["k32"], to=TensorProto.FLOAT))
    reads = ["joined" if names else "large", "k32" if half else "k", *(["b"] if bias else [])]
    nodes.append(helper.make_node("Conv", reads, ["y"], **{**PADS, **(convolution or {})}))
    height, width = SMALL[0] * 2, SMALL[1] * 2
    values = {"x": ("B", CHANNELS, *SMALL), "z": ("B", BESIDE, height, width), "y": ("B", OUTPUTS, None, None)}
    described = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in values.items()}
    declared = helper.make_tensor_value_info("large", TensorProto.FLOAT, ("B", CHANNELS, height, width))
    tensors = [numpy_helper.from_array(v.astype(np.float32) if n == "b" else v, n) for n, v in constants.items()]
    graph = helper.make_graph(
        nodes, "g", [described["x"], described["z"]], [described["y"]], tensors, value_info=[declared]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def run(data, batch=2):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    feeds = {"x": random.normal(size=(batch, CHANNELS, *SMALL)), "z": random.normal(size=(batch, BESIDE, 10, 14))}
    return session.run(None, {name: value.astype(np.float32) for name, value in feeds.items()})[0]


def operations(data):
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


@pytest.mark.parametrize("joined", [None, "front", "behind"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_form_equals_the_graph(joined, half, bias):
    data = build(joined, half=half, bias=bias)
    form = cpu_form(data)
    onnx.checker.check_model(onnx.load_from_string(form), full_check=True)
    assert "Resize" not in operations(form)
    assert operations(form).count("Conv") == (5 if joined else 4)
    np.testing.assert_allclose(run(form), run(data), atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": (1, 1, 2, 3)},
        {"scales": (1, 1, 4, 4)},
        {"resize": {"mode": "linear"}},
        {"resize": {"nearest_mode": "ceil"}},
        {"resize": {"coordinate_transformation_mode": "half_pixel"}},
        {"convolution": {"pads": [0, 0, 0, 0]}},
        {"convolution": {"strides": [2, 2]}},
        {"convolution": {"dilations": [2, 2]}},
    ],
)
def test_what_only_looks_alike_stays_as_it_is(changes):
    data = build(**changes)
    assert cpu_form(data) is data


def test_a_form_has_no_form_of_its_own():
    form = cpu_form(build("front"))
    assert cpu_form(form) is form


@pytest.mark.parametrize("cut", [1, 7, 100, -1])
def test_what_cannot_be_read_is_left_to_who_loads_it(cut):
    data = build()[:cut]
    assert cpu_form(data) is data


def test_a_graph_whose_nodes_share_one_kernel_does_not_outgrow_itself():
    model = onnx.load_from_string(build())
    (convolution,) = (node for node in model.graph.node if node.op_type == "Conv")
    for k in range(20):
        copy = model.graph.node.add()
        copy.CopyFrom(convolution)
        copy.output[0] = f"y{k}"
        model.graph.output.append(helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, None))
    data = model.SerializeToString()
    assert cpu_form(data) is data


def test_damaged_models_end_in_no_error_of_another_kind():
    random = np.random.default_rng(0)
    data = build("front", half=True)
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(0, 256)
        assert isinstance(cpu_form(bytes(damaged)), bytes)


def test_the_phase_kernels_are_sums_of_taps():
    kernel = np.arange(9.0).reshape(1, 1, 3, 3)
    assert phase_kernel(kernel, 0, 0).tolist() == [[[[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]]]
    assert phase_kernel(kernel, 1, 0).tolist() == [[[[0 + 3, 1 + 2 + 4 + 5], [6, 7 + 8]]]]


def test_the_coarse_stage_of_a_bundle_takes_the_form_and_gives_the_same(narrow_bundle):
    bundle, stage = open_bundle(narrow_bundle), STAGES[0]
    data = bundle.model(stage)
    form = cpu_form(data)
    assert operations(form).count("Resize") < operations(data).count("Resize")
    golden = bundle.golden()
    inputs = {name: golden[name] for name in stage.inputs}
    plain = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(list(stage.outputs), inputs)
    for name, expected in zip(stage.outputs, plain, strict=True):
        np.testing.assert_allclose(open_session(data, stage, None, 1).run(inputs)[name], expected, atol=1e-5)


@pytest.mark.parametrize("one_face", [True, False])
def test_a_single_face_takes_the_graph_as_it_is(one_face, narrow_bundle, monkeypatch):
    formed = []

    def noted(data):
        formed.append(data)
        return cpu_form(data)

    monkeypatch.setattr(onnxruntime, "cpu_form", noted)
    chain = open_chain(open_bundle(narrow_bundle), device="cpu", threads=1, one_face=one_face)
    assert len(formed) == (0 if one_face else len(chain.sessions))
