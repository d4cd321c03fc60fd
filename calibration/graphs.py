"""Float graphs, made ready for quantisation: constants folded, every node named by its torch module."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from showface.runtime.errors import UsageError

SCOPES = "pkg.torch.onnx.name_scopes"  # what the exporter writes on every node
QUANTIZED_OPS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")
# Module levels that make one layer group; the parser's stage wraps it in a module of its own.
GROUP_DEPTH = {"coarse": 2, "parser": 4, "memory": 2, "mrem": 2, "refiner": 2}


def float_graph(data: bytes, stage: str) -> ModelProto:
    """Parse a stage and fold the casts that turn stored float16 weights into float32.

    A quantiser that meets a weight behind a cast takes it for an activation and quantises none.

    Raises:
        UsageError: the graph is quantised already, or a convolution's weight is no constant.
    """
    model = onnx.load_from_string(data)
    if any(node.op_type in QUANTIZED_OPS for node in model.graph.node):
        raise UsageError(f"stage {stage}: is quantised already; calibrate the float bundle that it came from")
    _fold_casts(model)
    _fix_scales(model)
    _fold_sums(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] not in constants:
            raise UsageError(f"stage {stage}: the weight of {node.name} is no constant; export the bundle again")
    return model


def _fold_casts(model: ModelProto) -> None:
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


def _fold_sums(model: ModelProto) -> None:
    """Move a constant that is added to a convolution's output, or to that enlarged, into its bias.

    The sum, such as 1 + γ, would be a pass of its own in 8 bits. Interpolation leaves a constant as it is.
    """
    constants, source, after = constant_values(model), producers(model), readers(model)
    outputs = {output.name for output in model.graph.output}
    for node in list(model.graph.node):
        added = [name for name in node.input if name in constants and constants[name].size == 1]
        if node.op_type != "Add" or len(added) != 1 or node.output[0] in outputs:
            continue
        name = next(name for name in node.input if name not in added)
        maker = source.get(name)
        if maker is not None and maker.op_type == "Resize" and len(after[name]) == 1:
            maker = source.get(maker.input[0])
        if maker is None or maker.op_type != "Conv" or len(maker.input) < 3 or outputs.intersection(maker.output):
            continue
        if len(after[maker.output[0]]) > 1 or maker.input[2] not in constants:
            continue
        bias = numpy_helper.from_array(constants[maker.input[2]] + constants[added[0]].reshape(()), f"{node.name}_bias")
        model.graph.initializer.append(bias)
        constants[bias.name] = numpy_helper.to_array(bias)
        maker.input[2] = bias.name
        for reader in after[node.output[0]]:
            reader.input[:] = [name if edge == node.output[0] else edge for edge in reader.input]
        after[name] = after[node.output[0]]
    drop_unread(model)


def drop_unread(model: ModelProto) -> None:
    """Remove nodes whose outputs nothing reads, those that only they read, and constants that are left over."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)


def layer_of(node: NodeProto) -> str:
    """Return the torch module that a node came from, such as ``decode4.spade1.shared``; empty for the stage itself."""
    if len(node.input) > 1 and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight")  # a folded normalisation overwrites the scopes
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    path = ast.literal_eval(scopes)
    return str(path[-2]) if len(path) > 1 else ""


def group_of(node: NodeProto, stage: str) -> str:
    """Return the layer group of a node: the first levels of its module's name."""
    return ".".join(layer_of(node).split(".")[: GROUP_DEPTH[stage]])


def constant_values(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the constants of a graph."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Return the node that writes each tensor."""
    return {output: node for node in model.graph.node for output in node.output}


def readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the graph declares; an open dimension is 0."""
    declared = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in declared}


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or ``default`` where it is absent."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def float_bytes(model: ModelProto) -> int:
    """Return how many bytes the constants take as float32."""
    return int(sum(4 * np.prod(tensor.dims, dtype=np.int64) for tensor in model.graph.initializer))
