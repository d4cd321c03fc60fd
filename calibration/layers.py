"""The layers of a graph as a plan names them: torch modules, and groups of them."""

from __future__ import annotations

import re

from onnx import NodeProto

from showface.export.graph import module_of

PART = re.compile(r"\.part\d+$")  # of a weight that was split; its layer is one all the same
# Module levels that make one layer group; the parser's stage wraps it in a module of its own.
GROUP_DEPTH = {"coarse": 2, "parser": 4, "memory": 2, "mrem": 2, "refiner": 2}


def layer_of(node: NodeProto) -> str:
    """Return the torch module that a node came from, such as ``decode4.spade1.shared``; empty for the stage itself."""
    if len(node.input) > 1 and node.input[1].endswith(".weight"):  # a folded normalisation overwrites the scopes
        return PART.sub("", node.input[1].removesuffix(".weight"))
    return module_of(node)


def group_of(node: NodeProto, stage: str) -> str:
    """Return the layer group of a node: the first levels of its module's name."""
    return ".".join(layer_of(node).split(".")[: GROUP_DEPTH[stage]])
