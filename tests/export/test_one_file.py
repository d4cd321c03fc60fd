"""One ONNX file of all stages: what the stages compute one by one, as one model and as one engine."""

import hashlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from showface.export import one_file
from showface.export.engines.process import run_request
from showface.export.engines.request import BuildOptions, EngineRequest
from showface.export.one_file import export_one_file, join
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import STAGES

PROVIDERS = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def joined(narrow_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("joined") / "face.onnx"
    return path, export_one_file(open_bundle(narrow_bundle), path, 1)


def test_it_takes_image_and_mask_and_equals_the_chain(joined, narrow_bundle, chain_inputs):
    path, facts = joined
    session = ort.InferenceSession(path, providers=PROVIDERS)
    assert [i.name for i in session.get_inputs()] == ["image", "mask"]
    assert [o.name for o in session.get_outputs()] == ["completed_image"]
    image, mask = chain_inputs
    expected = open_chain(open_bundle(narrow_bundle), "cpu", 1).complete(image, mask)
    (found,) = session.run(None, {"image": image, "mask": mask})
    np.testing.assert_allclose(found, expected, atol=2e-6)  # optimised across the borders of the stages
    known = np.broadcast_to(mask == 0, image.shape)
    np.testing.assert_array_equal(found[known], image[known])
    nodes = sum(len(onnx.load(narrow_bundle / f"{stage.name}.onnx").graph.node) for stage in STAGES)
    assert (facts["nodes"], facts["bytes"]) == (nodes, path.stat().st_size)


def test_node_by_node_it_equals_the_stages_bit_by_bit(joined, narrow_bundle, chain_inputs):
    def run(data, tensors):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(data, options, providers=PROVIDERS)
        names = [o.name for o in session.get_outputs()]
        given = {i.name: tensors[i.name] for i in session.get_inputs()}
        return dict(zip(names, session.run(names, given), strict=True))

    tensors = dict(zip(("image", "mask"), chain_inputs, strict=True))
    for stage in STAGES:
        tensors |= run((narrow_bundle / f"{stage.name}.onnx").read_bytes(), tensors)
    found = run(joined[0].read_bytes(), tensors)["completed_image"]
    np.testing.assert_array_equal(found, tensors["completed_image"])


def test_names_are_of_their_stages_and_none_twice():
    proto = join(open_bundle())
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == {stage.name for stage in STAGES}
    weights = [tensor.name for tensor in proto.graph.initializer]
    assert len(set(weights)) == len(weights)
    written = [name for node in proto.graph.node for name in node.output if name]
    assert len(set(written)) == len(written)
    assert dict((p.key, p.value) for p in proto.metadata_props)["variant"] == "full"


def test_it_parses_and_builds_as_one_engine(joined, tmp_path):
    path, _ = joined
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    options = BuildOptions("tensorrt-rtx", "sm_86", (1, 1, 2))
    request = EngineRequest("joined", str(path), digest, str(tmp_path / "engine"), "float32", False, options)
    outcome = run_request(request)
    assert outcome.good, outcome
    assert outcome.facts["dtypes"] == dict.fromkeys(("image", "mask", "completed_image"), "float32")
    assert (tmp_path / "engine").stat().st_size > 100_000


def test_a_graph_that_computes_something_else_is_not_kept(narrow_bundle, tmp_path, monkeypatch):
    bundle = open_bundle(narrow_bundle)

    def wrong(bundle):
        proto = join(bundle)
        bias = next(i for i in proto.graph.initializer if i.name.startswith("refiner/detail.head.conv.bias"))
        values = onnx.numpy_helper.to_array(bias)
        bias.CopyFrom(onnx.numpy_helper.from_array(values + values.dtype.type(0.1), bias.name))
        return proto

    monkeypatch.setattr(one_file, "join", wrong)
    with pytest.raises(ShowfaceError, match="computes something else than the stages one by one; nothing was kept"):
        export_one_file(bundle, tmp_path / "wrong.onnx", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_or_cannot_be_written_is_refused(narrow_bundle, tmp_path):
    bundle = open_bundle(narrow_bundle)
    (tmp_path / "there.onnx").touch()
    with pytest.raises(UsageError, match=r"there\.onnx: exists already"):
        export_one_file(bundle, tmp_path / "there.onnx", 1)
    with pytest.raises(UsageError, match=r"x\.onnx: cannot be written: Not a directory"):
        export_one_file(bundle, tmp_path / "there.onnx" / "x.onnx", 1)
