"""What a graph computes from constants alone becomes a constant: weights behind casts, sizes of enlargements."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from ..graph import shapes
from .edits import drop_unread


def fold_casts(model: ModelProto) -> None:
    """Fold the casts that turn stored float16 weights into float32.

    A quantiser that meets a weight behind a cast takes it for an activation and quantises none.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "Cast" or node.input[0] not in constants:
            kept.append(node)
            continue
        to = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
        value = numpy_helper.to_array(constants[node.input[0]]).astype(to)
        constants[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    used = {name for node in kept for name in node.input} | {output.name for output in model.graph.output}
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)


def fix_scales(model: ModelProto) -> None:
    """Give every Resize whose space is fixed constant scales instead of computed sizes.

    Sizes computed from a tensor's shape count as a second reader of it, and ONNX Runtime then resizes in float.
    """
    known = shapes(model)
    for node in model.graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or not node.input[3]:
            continue
        before, after = known.get(node.input[0], ()), known.get(node.output[0], ())
        if len(before) != 4 or len(after) != 4 or not all((*before[1:], *after[1:])):
            continue
        scales = np.array([1, *(a / b for a, b in zip(after[1:], before[1:], strict=True))], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{node.name}_scales"))
        del node.input[2:]
        node.input.append(f"{node.name}_scales")
    drop_unread(model)
