"""Float graphs, made ready for quantisation: casts folded, sizes constant, joined inputs split."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from showface.export.graph import attribute, shapes
from showface.runtime.errors import UsageError

from ..settings import Target
from .edits import Wiring, add_constants, copy_of, drop_unread, replace_node
from .partial import ready_partial_convolutions
from .subpixel import is_doubling, is_plain_convolution

QUANTIZED_OPS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")


def float_graph(data: bytes, stage: str, target: Target) -> ModelProto:
    """Parse a stage and bring it into the form that is quantised for ``target``.

    Raises:
        UsageError: the graph is quantised already, or a convolution's weight is no constant.
    """
    model = onnx.load_from_string(data)
    if any(node.op_type in QUANTIZED_OPS for node in model.graph.node):
        raise UsageError(f"stage {stage}: is quantised already; calibrate the float bundle that it came from")
    _fold_casts(model)
    _fix_scales(model)
    ready_partial_convolutions(model)
    if target is Target.CPU:
        _split_joined_inputs(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] not in constants:
            raise UsageError(f"stage {stage}: the weight of {node.name} is no constant; export the bundle again")
    return model


def _fold_casts(model: ModelProto) -> None:
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


def _fix_scales(model: ModelProto) -> None:
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


def _split_joined_inputs(model: ModelProto) -> None:
    """Write a convolution of enlarged features joined to others as the sum of a convolution of each.

    The first can then be computed before the enlargement (:mod:`showface.calibration.rewrites.subpixel`), and what it
    was joined to is in 8 bits already.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        joined = wiring.producers.get(node.input[0]) if is_plain_convolution(node, wiring) else None
        if joined is None or joined.op_type != "Concat" or attribute(joined, "axis", None) != 1:
            continue
        enlarged = any(is_doubling(wiring.producers.get(name), wiring) for name in joined.input)
        channels, *_ = wiring.image_shape(joined.input[0])
        weight = node.input[1]
        alone = wiring.only_reader(joined) is not None and len(wiring.readers[weight]) == 1
        if not (enlarged and channels and alone and len(joined.input) == 2 and weight.endswith(".weight")):
            continue
        parts = []
        for k, kernel in enumerate(np.split(wiring.constants[weight], [channels], axis=1)):
            part = copy_of(node, joined.input[k], f"{node.output[0]}_part{k}")
            part.input[1] = f"{weight.removesuffix('.weight')}.part{k}.weight"  # tells the layer, as before
            add_constants(model, {part.input[1]: kernel})
            parts.append(part)
        del parts[1].input[2:]  # one bias is enough
        names = [part.output[0] for part in parts]
        replace_node(model, node, [*parts, helper.make_node("Add", names, [node.output[0]], f"{node.name}_parts")])
    drop_unread(model)
