"""References of a graph to other files, compared with what the package onnx says of the same model."""

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from faults.graphs import bundle_with
from onnx import TensorProto, helper, numpy_helper

from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.untrusted.onnx_file import refers_to_files

ENTRY = {"location": "secret.bin"}


def outside(entries=ENTRY, marked=True):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL if marked else TensorProto.DEFAULT
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def inside(name="w"):
    return numpy_helper.from_array(np.zeros(4, np.float32), name)


def model(nodes=(), initializers=(), **parts):
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph(list(nodes) or [helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], initializers)
    return helper.make_model(graph, **parts)


def branch(tensor):
    y = helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])
    return helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "b", [], [y], [tensor])


def sparse(values, indices):
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def functions(tensor):
    body = [helper.make_node("Constant", [], ["o"], value=tensor)]
    return [helper.make_function("own", "f", [], ["o"], body, [helper.make_opsetid("", 18)])]


def members(tensor):
    """Yield models that hold a tensor where one can be."""
    node = helper.make_node
    yield model(initializers=[inside("v"), tensor])
    yield model([node("Constant", [], ["y"], value=tensor)])
    yield model([node("Own", [], ["y"], several=[inside(), tensor])])
    yield model([node("If", ["c"], ["y"], then_branch=branch(inside()), else_branch=branch(tensor))])
    yield model([node("Own", [], ["y"], graphs=[branch(inside()), branch(tensor)])])
    deep = model([node("If", ["c"], ["y"], then_branch=branch(inside()), else_branch=branch(tensor))]).graph
    yield model([node("Loop", ["", ""], ["y"], body=deep)])
    yield model(functions=functions(tensor), opset_imports=[helper.make_opsetid("own", 1)])
    for values, indices in ((tensor, inside()), (inside(), tensor)):
        made = model()
        made.graph.sparse_initializer.append(sparse(values, indices))
        yield made
        yield model([node("Constant", [], ["y"], sparse_value=sparse(values, indices))])
    trained = model()
    trained.training_info.add().initialization.initializer.append(tensor)
    yield trained


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize(
    "entries",
    [ENTRY, {"location": "/etc/passwd"}, {"location": "*/_ORT_MEM_ADDR_/*", "offset": "0"}, {"location": "", "x": "y"}],
    ids=str,
)
def test_a_reference_is_found_wherever_it_is(place, entries):
    assert refers_to_files(list(members(outside(entries)))[place].SerializeToString())
    assert refers_to_files(list(members(outside(entries, marked=False)))[place].SerializeToString())


@pytest.mark.parametrize("place", range(12))
def test_weights_of_their_own_are_none(place):
    tensor = inside()
    tensor.doc_string = "location"
    assert not refers_to_files(list(members(tensor))[place].SerializeToString())


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_what_is_no_graph_is_refused(cut):
    data = next(iter(members(outside()))).SerializeToString()
    with pytest.raises(ValueError, match="protobuf"):
        refers_to_files(b"\x0f" + data)
    with pytest.raises(ValueError, match="protobuf"):
        refers_to_files(data + b"\x3a\xff\xff\xff\x7f location"[: 5 + cut])


def test_a_bundle_with_such_a_graph_is_refused(tmp_path):
    stage = open_bundle(default_bundle()).manifest.stages[0]
    made = onnx.load(default_bundle() / f"{stage.name}.onnx")
    made.graph.initializer[0].CopyFrom(outside())
    folder = bundle_with(tmp_path / "b", made.SerializeToString(), stage.name)
    with pytest.raises(UsageError, match="its weights lie in another file"):
        open_bundle(folder).model(stage)
