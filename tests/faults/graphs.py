"""Graphs of the stage refiner that do not do what the stage table says, and a bundle that holds one."""

import hashlib
import json
import shutil

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from showface.runtime.bundle import default_bundle
from showface.runtime.stages import STAGES

REFINER = STAGES[-1]
FACE = ["B", 3, 256, 256]
OUT = "completed_image"


def constant(name, values, dtype=np.int64):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def graph(nodes, initializers=(), shape=FACE, kind=TensorProto.FLOAT, batch="B", value=None):
    """Return the bytes of a refiner; ``shape`` and ``kind`` are what it says that it returns."""
    inputs = [("coarse_image", [batch, *FACE[1:]]), ("mask", [batch, 1, 256, 256])]
    inputs.append(("guidance", [batch, "c", 64, 64]))
    output = value or helper.make_tensor_value_info(OUT, kind, shape)
    made = helper.make_graph(
        nodes,
        "refiner",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in inputs],
        [output],
        list(initializers),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def node(kind, inputs, outputs=(OUT,), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def good():
    return graph([node("Identity", ["coarse_image"])])


def sliced(stop, axis=0, shape=None, said="n"):
    """Return a graph that cuts an axis off at ``stop``."""
    ends = [constant("s", [0]), constant("e", [stop]), constant("a", [axis])]
    shape = shape or (
        [said, *FACE[1:]] if axis == 0 else ["B", *("uvw"[k] if k + 1 == axis else d for k, d in enumerate(FACE[1:]))]
    )
    return graph([node("Slice", ["coarse_image", "s", "e", "a"])], ends, shape)


def repeated(times):
    parts = ["coarse_image"] * times
    return graph([node("Concat", parts, axis=0)], shape=["n", *FACE[1:]])


def cast(kind):
    return graph([node("Cast", ["coarse_image"], to=kind)], kind=kind)


def filled(value):
    """Return a graph that gives the first face such values."""
    return graph(
        [node("Slice", ["coarse_image", "s", "e", "s"], ["first"]), node("Shape", ["first"], ["sides"]),
         node("Expand", ["value", "sides"], ["wrong"]), node("Slice", ["coarse_image", "e", "most", "s"], ["rest"]),
         node("Concat", ["wrong", "rest"], axis=0)],
        [constant("s", [0]), constant("e", [1]), constant("most", [2**31]), constant("value", [value], np.float32)],
    )  # fmt: skip


def endless():
    """Return a loop whose condition is always true."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Identity", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    return graph([node("Loop", ["", "true", "coarse_image"], body=body)], [constant("true", True, np.bool_)])


def sequence():
    value = helper.make_tensor_sequence_value_info(OUT, TensorProto.FLOAT, FACE)
    return graph([node("SequenceConstruct", ["coarse_image"])], value=value)


# What a run finds, and the words that it says.
AT_RUN = {
    "no rows": (sliced(0), "returned 0 faces for 2"),
    "one row": (sliced(1), "returned 1 faces for 2"),
    "two rows a face": (repeated(2), "returned 4 faces for 2"),
    "five rows a face": (repeated(5), "returned 10 faces for 2"),
    "a row more, under the name of the batch": (repeated(2).replace(b"\x01n", b"\x01B"), "returned 4 faces for 2"),
    "two channels": (sliced(2, axis=1), "completed_image is float32"),
    "half the height": (sliced(128, axis=2), "completed_image is float32"),
    "no width": (sliced(0, axis=3), "completed_image is float32"),
    "flat": (graph([node("Flatten", ["coarse_image"])], shape=["B", "n"]), "completed_image is float32"),
}
# What loading finds.
AT_LOAD = {
    "double": cast(TensorProto.DOUBLE),
    "half": cast(TensorProto.FLOAT16),
    "whole numbers": cast(TensorProto.INT32),
    "truth": cast(TensorProto.BOOL),
    "text": cast(TensorProto.STRING),
    "a sequence": sequence(),
    "another size": sliced(128, axis=2, shape=["B", 3, 128, 256]),
    "another rank": graph([node("Unsqueeze", ["coarse_image", "a"])], [constant("a", [0])], shape=[1, *FACE]),
    "a scalar": graph([node("ReduceSum", ["coarse_image"], keepdims=0)], shape=[]),
    "a fixed batch": graph([node("Identity", ["coarse_image"])], shape=[1, *FACE[1:]], batch=1),
    "another output": good().replace(b"completed_image", b"completed_imagf"),
}


def bundle_with(folder, data, stage="refiner"):
    """Return a copy of the default bundle, its hashes right, in which ``data`` is the graph of a stage."""
    shutil.copytree(default_bundle(), folder)
    (folder / f"{stage}.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][f"{stage}.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
