"""A float16 graph computes in float16 where it says so, in float32 where it must, and what the float32 graph does."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import showface.export.bundle as exporter
from showface.evaluation.faces import real_faces
from showface.evaluation.parity.cases import array_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import ChainSource, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.evaluation.parity.torch_source import source_of_model
from showface.export import parity
from showface.export.float16 import assert_float16, convert_to_float16, half_shares
from showface.export.graph import module_of, node_modules
from showface.runtime.backends.chain import Chain
from showface.runtime.backends.onnxruntime import open_chain, open_session
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import STAGES, TENSORS
from showface.training.networks.islands import ISLANDS, Island

DATA = Path(os.environ.get("SHOWFACE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def load(stage):
    return onnx.load(default_bundle() / f"{stage}.onnx")


@pytest.fixture(scope="module")
def halves():
    """Return the float16 graphs of the default bundle by stage."""
    return {stage.name: convert_to_float16(load(stage.name), ISLANDS[stage.name], stage.name) for stage in STAGES}


@pytest.fixture(scope="module")
def narrow_halves(narrow_bundle):
    """Return the float16 graphs of the narrow bundle by stage."""
    protos = {stage.name: onnx.load(narrow_bundle / f"{stage.name}.onnx") for stage in STAGES}
    return {name: convert_to_float16(proto, ISLANDS[name], name) for name, proto in protos.items()}


def chain_of(graphs):
    return Chain([open_session(graphs[s.name].SerializeToString(), s, None, 1) for s in STAGES], "float16")


@pytest.fixture(scope="module")
def narrow_chain(narrow_halves):
    return chain_of(narrow_halves)


@pytest.fixture(scope="module")
def narrow_torch(narrow_model):
    return source_of_model(narrow_model, "PyTorch", "")


def float16_parity(reference, chain, image, mask):
    """Return the result of comparing a float16 chain with ``reference`` on faces."""
    precision = {stage.name: "float16" for stage in STAGES}
    candidate = ChainSource(chain, replace(reference.identity, description="float16", precision=precision))
    return compare_sources(
        reference, candidate, array_cases(image, mask, "face"), plan_tolerances(precision, None, {})
    ).result


def types_of(proto):
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    typed = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return typed | {i.name: i.data_type for i in graph.initializer}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_products_are_float16_islands_float32_and_the_ends_as_in_the_table(halves, stage):
    proto = halves[stage.name]
    types = types_of(proto)
    promised = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    for value in (*proto.graph.input, *proto.graph.output):
        assert types[value.name] == promised[TENSORS[value.name].dtype]
    counted = Counter()
    for node in proto.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name
        if node.op_type in ("InstanceNormalization", "BatchNormalization", "Softmax", "ReduceMean", "AveragePool"):
            assert {types[name] for name in node.input if types[name] != TensorProto.INT64} == {TensorProto.FLOAT}
        counted[node.op_type] += 1
    before = Counter(node.op_type for node in load(stage.name).graph.node)
    del before["Cast"], counted["Cast"]
    assert counted == before
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    shares = half_shares(proto)
    assert shares["weights"] > (0.6 if stage.name == "memory" else 0.99)  # memory: the slots' norms, in float32
    assert shares["operators"] > 0.6


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_declared_island_matches_the_network(stage):
    nodes = load(stage.name).graph.node
    for island in ISLANDS[stage.name]:
        members = [n for n in nodes if n.op_type in island.operators]
        assert members, island
        if "*" not in island.scope:
            assert any(module_of(n) == island.scope for n in members), island


def test_what_is_known_is_copied_bit_by_bit(narrow_chain, chain_inputs):
    image, mask = (array[:2] for array in chain_inputs)
    tensors = narrow_chain.run({"image": image, "mask": mask})
    known = np.broadcast_to(mask == 0, image.shape)
    for name in ("coarse_image", "completed_image"):
        np.testing.assert_array_equal(tensors[name][known], image[known])


@pytest.mark.skipif(not (DATA / "celebahq/val").is_dir(), reason="needs the shared faces")
def test_real_faces_survive(halves, tmp_path):
    bundle = open_bundle()
    reference = source_of_bundle(bundle, open_chain(bundle, "cpu", 1))
    images, masks = tmp_path / "images", tmp_path / "masks"
    faces = sorted((DATA / "celebahq/val").rglob("*.jpg"))[:4]
    holes = [sorted((DATA / f"masks/val/{b}").iterdir())[0] for b in ("10-20", "20-30", "40-50", "50-60")]
    for folder, sources in ((images, faces), (masks, holes)):
        folder.mkdir()
        for face, source in zip(faces, sources, strict=True):
            (folder / f"{face.stem}{source.suffix}").symlink_to(source)
    report = float16_parity(reference, chain_of(halves), *real_faces(images, masks, 256))
    assert report["images"] == 4
    assert report["chain"]["psnr_db"] > 60
    assert report["stages"]["coarse"]["max_abs"] < 5e-3
    # The reference is a chain, which knows no margins: a label that flips cannot be told from a fault there.
    assert all("a label flipped" in failure for f in report["stages"].values() for failure in f["failures"])


def test_parity_finds_a_planted_fault_and_a_nan(narrow_torch, narrow_halves, narrow_chain, chain_inputs):
    faces = tuple(array[:1] for array in chain_inputs)
    assert float16_parity(narrow_torch, narrow_chain, *faces)["passed"]
    for value in (0.5, np.nan):
        proto = onnx.ModelProto()
        proto.CopyFrom(narrow_halves["refiner"])
        bias = next(i for i in proto.graph.initializer if i.name.startswith("detail.head.conv.bias"))
        bias.CopyFrom(numpy_helper.from_array(np.full(3, value, np.float16), bias.name))
        broken = open_session(proto.SerializeToString(), STAGES[-1], None, 1)
        report = float16_parity(narrow_torch, Chain([*narrow_chain.sessions[:-1], broken], ""), *faces)
        assert not report["passed"]
        assert report["stages"]["coarse"]["passed"]
        (failure, *_) = report["stages"]["refiner"]["failures"]
        assert ("nan values" in failure) == np.isnan(value)


def test_parity_looks_at_every_stage(narrow_torch, narrow_chain, chain_inputs):
    """A wrong memory hardly moves the pixels of a network that has learnt little from it."""
    memory = next(s for s in narrow_chain.sessions if s.stage.name == "memory")
    wrong = SimpleNamespace(stage=memory.stage, run=lambda given: {k: v + 0.2 for k, v in memory.run(given).items()})
    chain = Chain([wrong if s is memory else s for s in narrow_chain.sessions], "")
    report = float16_parity(narrow_torch, chain, *(array[:1] for array in chain_inputs))
    assert report["stages"]["memory"]["max_abs"] > 0.1
    assert not report["stages"]["memory"]["passed"]


def test_asked_for_float16_a_float32_product_is_an_error():
    with pytest.raises(ShowfaceError, match=r"but Conv 'node_conv2d' of module 'body\.stem\.feature'"):
        assert_float16(load("refiner"), "refiner")
    empty = helper.make_model(helper.make_graph([], "empty", [], []))
    with pytest.raises(ShowfaceError, match="holds no product"):
        assert_float16(empty, "mrem")


def test_a_weight_beyond_float16_is_named_with_its_module():
    proto = load("refiner")
    bias = next(i for i in proto.graph.initializer if i.name == "detail.head.conv.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(3, 1e5, np.float32), bias.name))
    with pytest.raises(
        ShowfaceError,
        match=r"'detail\.head\.conv\.bias', read by module 'detail\.head\.conv', reaches 100000, beyond float16",
    ):
        convert_to_float16(proto, ISLANDS["refiner"], "refiner")


def test_a_value_that_enters_an_island_twice_and_leaves_the_graph():
    """The case that library converters write two nodes of one name for; compared with numpy."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("Mul", ["y", "y"], ["square"], "square"),
        helper.make_node("Relu", ["y"], ["z"], "relu"),
        helper.make_node("Add", ["z", "square"], ["sum"], "sum"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in ("x", "y", "sum")]
    weight = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    initializers = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    proto = convert_to_float16(model, (Island("", ("Mul",), "a test"),), "test")
    assert_float16(proto, "test")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[1, 2, 3, 4], [-1, 0, 1, 0.5]], np.float32)
    product, total = session.run(["y", "sum"], {"x": x})
    expected = (x.astype(np.float16) @ weight.astype(np.float16)).astype(np.float32)
    np.testing.assert_allclose(product, expected, atol=5e-3)
    np.testing.assert_allclose(total, np.maximum(product, 0) + product**2, atol=2e-2)
    assert {types_of(proto)[name] for name in ("y", "sum", "x")} == {TensorProto.FLOAT}


def test_the_modules_of_the_nodes(halves):
    names = node_modules(halves["refiner"].SerializeToString())
    last = {node.op_type: node.name for node in halves["refiner"].graph.node}
    assert names[last["Conv"]] == "detail.head.conv"
    assert names[last["InstanceNormalization"]] == "detail.join1.norm_skip"
    assert names[last["Add"]] == ""  # the residual on the coarse face


def test_the_refusal_of_an_unknown_precision(tmp_path):
    with pytest.raises(UsageError, match="fp8 is not made; use one of fp32, fp16"):
        exporter.export_bundle(tmp_path / "none", tmp_path / "bundle", (np.zeros(0), np.zeros(0)), 1, "fp8")


def test_a_float16_bundle_from_a_checkpoint(narrow_bundle, narrow_checkpoint, chain_inputs, tmp_path, monkeypatch):
    """The traced graphs are those of the narrow bundle: tracing them again would prove nothing here."""
    monkeypatch.setattr(
        exporter, "export_stage", lambda module, stage, config, half: onnx.load(narrow_bundle / f"{stage.name}.onnx")
    )
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))
    report = exporter.export_bundle(narrow_checkpoint, tmp_path / "half", chain_inputs, 1, "fp16")
    assert report["passed"]
    assert report["float16"]["passed"]
    assert set(report["float16"]["shares"]) == {stage.name for stage in STAGES}
    bundle = open_bundle(tmp_path / "half")
    assert set(bundle.manifest.precision.values()) == {"float16"}
    assert json.loads((tmp_path / "half" / "manifest.json").read_text())["weights_dtype"] == "float16"
    for stage in STAGES:
        assert_float16(onnx.load_model_from_string(bundle.model(stage)), stage.name)
    wrong = {"passed": False, "stages": {"refiner": {"failures": ["too far off"]}}, "chain": {"failures": []}}
    verdicts = iter([{"passed": True}, wrong])  # the first is proved above
    monkeypatch.setattr(exporter, "bundle_parity", lambda *_: next(verdicts))
    with pytest.raises(ShowfaceError, match=r"the float16 graph differs .*/islands\.py: refiner: too far off"):
        exporter.export_bundle(narrow_checkpoint, tmp_path / "other", chain_inputs, 1, "fp16")
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torch_float16_on_a_gpu_is_as_near(narrow_model, chain_inputs):
    """Where a GPU is at hand, the network itself in float16 under autocast, against its own float32."""
    image, mask = (torch.from_numpy(array).cuda() for array in chain_inputs)
    model = narrow_model.cuda()
    with torch.no_grad():
        full = model(image, mask)
        with torch.autocast("cuda", torch.float16):
            half = model(image, mask).float()
    narrow_model.cpu()
    assert torch.isfinite(half).all()
    assert float((full - half).abs().max()) < 0.1
