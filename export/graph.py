"""From a node of an exported graph to the torch module that it came from."""

from __future__ import annotations

import ast

import onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # written by torch.onnx.export: names from the stage down to the call


def scopes_of(node: onnx.NodeProto) -> tuple[str, ...] | None:
    """Return the torch modules that a node was traced in, outermost first, without the stage itself.

    None where a pass of the exporter made the node.
    """
    text = next((item.value for item in node.metadata_props if item.key == SCOPES), None)
    return None if text is None else tuple(name for name in ast.literal_eval(text)[:-1] if name)


def module_of(node: onnx.NodeProto) -> str:
    """Return the name of the torch module within its stage, such as ``decode4.spade1``; empty for the stage itself."""
    scopes = scopes_of(node)
    return scopes[-1] if scopes else ""


def node_modules(data: bytes) -> dict[str, str]:
    """Return the torch module of each node of a serialised graph, by the node's name."""
    return {node.name: module_of(node) for node in onnx.load_model_from_string(data).graph.node}
