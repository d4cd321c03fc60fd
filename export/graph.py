"""What an ONNX graph says of itself: the torch module of a node, who writes and reads what, shapes, constants."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

SCOPES = "pkg.torch.onnx.name_scopes"  # written by torch.onnx.export: names from the stage down to the call


def scopes_of(node: NodeProto) -> tuple[str, ...] | None:
    """Return the torch modules that a node was traced in, outermost first, without the stage itself.

    None where a pass of the exporter made the node.
    """
    text = next((item.value for item in node.metadata_props if item.key == SCOPES), None)
    return None if text is None else tuple(name for name in ast.literal_eval(text)[:-1] if name)


def module_of(node: NodeProto) -> str:
    """Return the name of the torch module within its stage, such as ``decode4.spade1``; empty for the stage itself."""
    scopes = scopes_of(node)
    return scopes[-1] if scopes else ""


def node_modules(data: bytes) -> dict[str, str]:
    """Return the torch module of each node of a serialised graph, by the node's name."""
    return {node.name: module_of(node) for node in onnx.load_model_from_string(data).graph.node}


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
