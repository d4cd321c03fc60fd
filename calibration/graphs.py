"""What a graph says of itself: which torch module a node came from, who writes and reads what, shapes, constants."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

SCOPES = "pkg.torch.onnx.name_scopes"  # what the exporter writes on every node
PART = re.compile(r"\.part\d+$")  # of a weight that was split; its layer is one all the same
# Module levels that make one layer group; the parser's stage wraps it in a module of its own.
GROUP_DEPTH = {"coarse": 2, "parser": 4, "memory": 2, "mrem": 2, "refiner": 2}


def layer_of(node: NodeProto) -> str:
    """Return the torch module that a node came from, such as ``decode4.spade1.shared``; empty for the stage itself."""
    if len(node.input) > 1 and node.input[1].endswith(".weight"):  # a folded normalisation overwrites the scopes
        return PART.sub("", node.input[1].removesuffix(".weight"))
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
