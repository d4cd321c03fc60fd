"""Parse a graph and look at what the parser made of it: refused nodes, types, and what a target cannot compile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from .request import EngineRequest

# TensorRT's names of element types, as the stage table and the manifest write them.
DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8", "BF16": "bfloat16"}
PRODUCT_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """One node, or the whole graph (empty node), that cannot be built, and what to do about it.

    ``argument`` names the option of a build by which it is done; it is empty where there is none.
    """

    node: str
    operator: str
    reason: str
    remedy: str
    argument: str = ""


def parse(trt: Any, network: Any, logger: Any, data: bytes) -> list[NodeRefusal]:
    """Parse ``data`` into ``network`` and return what the parser refused.

    Polygraphy's own loader writes the parser's errors to its log and raises a sentence without the node, so
    that the parser is called here.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse(data):
        return []
    refused = [parser.get_error(i) for i in range(parser.num_errors)]
    return [_refusal(error) for error in refused] or [
        NodeRefusal("", "", "the parser gave no reason", "export the bundle again")
    ]


def _refusal(error: Any) -> NodeRefusal:
    node, operator = error.node_name(), error.node_operator()
    code = error.code()
    kind = getattr(code, "name", str(code)).lower().replace("_", " ")
    if not node:
        return NodeRefusal("", "", f"{kind}: {error.desc()}", "export the bundle again with this version of showface")
    said = error.desc() if error.desc() not in ("", "false") else f"by {error.func()}"
    remedy = "write the module without this operator (CONTRIBUTING.md lists what engines parse), and export again"
    return NodeRefusal(node, operator, f"{kind} {said}", remedy)


def io_dtypes(network: Any) -> dict[str, str]:
    """Return the element types of the network's inputs and outputs, by name."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: _dtype(tensor) for tensor in tensors}


def _dtype(tensor: Any) -> str:
    return DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower())


def _products(network: Any) -> list[tuple[Any, str]]:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [(layer, _dtype(layer.get_output(0))) for layer in layers if layer.type.name in PRODUCT_LAYERS]


def product_dtypes(network: Any) -> dict[str, int]:
    """Return how many convolutions and matrix products compute in which type."""
    return dict(Counter(dtype for _, dtype in _products(network)))


def wrong_products(network: Any, request: EngineRequest) -> list[NodeRefusal]:
    """Return the products that do not compute in the precision that the manifest promises, or not on the target."""
    refused = []
    for layer, dtype in _products(network):
        operator = layer.type.name.lower()
        if request.precision == "float16" and dtype == "float32":
            reason = "the manifest says float16, but it computes in float32"
            refused.append(NodeRefusal(layer.name, operator, reason, "export the bundle again in float16"))
        turing = (request.options.backend, request.options.target) == ("tensorrt-rtx", "sm_75")
        if turing and dtype == "float32" and layer.type.name == "MATRIX_MULTIPLY":
            reason = "TensorRT-RTX compiles no float32 matrix product for sm_75 (Turing)"
            refused.append(NodeRefusal(layer.name, operator, reason, "build with precision fp16", "precision"))
    return refused
