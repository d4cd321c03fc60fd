"""Where Q and DQ go: the rules as data, and the nodes that they select."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from types import MappingProxyType

from onnx import ModelProto, NodeProto

from showface.export.graph import module_of, producers, shapes

from .settings import Target

PART = re.compile(r"(\.part\d+|\.rows)+$")  # of a weight that was rewritten; its layer is the same
# Module levels that make one layer group; the parser's stage wraps it in a module of its own.
GROUP_DEPTH = {"coarse": 2, "parser": 4, "memory": 2, "mrem": 2, "refiner": 2}


@dataclass(frozen=True, slots=True)
class FloatRule:
    """Layers that stay in float unless a plan says otherwise.

    Attributes:
        stage: its name in the stage table.
        layer: pattern of torch module names, as in ``fnmatch``.
        reason: stands in the plan.
    """

    stage: str
    layer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """How a target wants its graph.

    Attributes:
        operators: operators that compute in 8 bits.
        followers: that pass 8 bits on where all activations that they read are quantised.
        merges: of two activations; both inputs are quantised where one of them is.
        quantized_outputs: whether the outputs of these nodes get Q and DQ.
        symmetric: zero points are 0 and activations signed.
        reduced_range: weights have 7 bits; AVX2 adds pairs of u8·s8 products in saturating 16 bits.
    """

    operators: tuple[str, ...]
    followers: tuple[str, ...]
    merges: tuple[str, ...]
    quantized_outputs: bool
    symmetric: bool
    reduced_range: bool

    @property
    def weight_limit(self) -> int:
        """The largest magnitude of a weight, as ONNX Runtime's quantiser has it."""
        return 64 if self.reduced_range else 127


# ONNX Runtime turns DQ → Conv → Q into one QLinearConv, so outputs are quantised as well; without a Q
# behind it a convolution runs in float, and each change between float and 8 bits costs a pass over memory.
# TensorRT fuses what follows a convolution itself and wants Q/DQ at inputs alone, at both of a residual
# add (NVIDIA, "Working with Quantized Types", Q/DQ placement recommendations).
RULES: Mapping[Target, Rules] = MappingProxyType(
    {
        Target.CPU: Rules(
            operators=("Conv",),
            followers=("Relu", "Clip", "LeakyRelu", "Sigmoid", "Split", "Resize", "Concat"),
            merges=("Add", "Mul"),
            quantized_outputs=True,
            symmetric=False,
            reduced_range=True,
        ),
        Target.TENSORRT: Rules(
            operators=("Conv", "MatMul"),
            followers=(),
            merges=("Add",),
            quantized_outputs=False,
            symmetric=True,
            reduced_range=False,
        ),
    }
)

# Partial convolutions are renormalised by k² / count, from 1 to 25: a step of 0.1 would be seen.
FLOAT_MERGES = ("coarse",)

# Softmax, argmax, cosines and normalisations are no operators of ``RULES`` and never quantised; their
# matrix products are named here.
FLOAT_RULES = (
    FloatRule("coarse", "to_rgb", "last convolution: its error is seen as it is"),
    FloatRule("coarse", "layout.weight", "mixes the colours of two faces: its error is seen as it is"),
    FloatRule("refiner", "body.head.*", "last convolution: its error is seen as it is"),
    FloatRule("refiner", "detail.head.*", "last convolution: its error is seen as it is"),
    FloatRule("parser", "parser.classifier", "logits: the argmax decides on their small differences"),
    FloatRule("memory", "", "region pooling, cosine and memory constant"),
    FloatRule("memory", "bank*", "cosine and memory constant"),
    FloatRule("mrem", "", "codes spread over regions: a product with 0 and 1"),
)


def layer_of(node: NodeProto) -> str:
    """Return the torch module that a node came from, such as ``decode4.spade1.shared``; empty for the stage itself."""
    if len(node.input) > 1 and node.input[1].endswith(".weight"):  # a folded normalisation overwrites the scopes
        return PART.sub("", node.input[1].removesuffix(".weight"))
    return module_of(node)


def quantizable(model: ModelProto, stage: str, target: Target) -> dict[str, tuple[NodeProto, ...]]:
    """Return the nodes that can be quantised by layer group, in the order of the graph."""
    groups: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in RULES[target].operators:
            group = ".".join(layer_of(node).split(".")[: GROUP_DEPTH[stage]])
            groups.setdefault(group or "(stage)", []).append(node)
    return {name: tuple(nodes) for name, nodes in groups.items()}


def default_float(model: ModelProto, stage: str, target: Target) -> dict[str, str]:
    """Return the groups that ``FLOAT_RULES`` keep in float, with the reason."""
    kept = {}
    for name, nodes in quantizable(model, stage, target).items():
        for rule in FLOAT_RULES:
            if rule.stage == stage and all(fnmatch(layer_of(node), rule.layer) for node in nodes):
                kept[name] = rule.reason
    return kept


def placed_nodes(model: ModelProto, stage: str, target: Target, groups: Iterable[str]) -> list[NodeProto]:
    """Return the nodes around which Q and DQ go when ``groups`` are quantised: theirs, and what follows and merges."""
    available = quantizable(model, stage, target)
    placed = {node.name: node for group in groups for node in available[group]}
    kept = {node.name for nodes in available.values() for node in nodes} - set(placed)
    constants = {tensor.name for tensor in model.graph.initializer}
    source, rules, known = producers(model), RULES[target], shapes(model)
    for node in model.graph.node:  # in topological order, so that one pass follows whole islands
        reads = [name for name in _activations(node) if name not in constants]
        quantized = [name in source and source[name].name in placed for name in reads]
        if node.name in kept or not any(quantized):
            continue
        merges = node.op_type in rules.merges and stage not in FLOAT_MERGES
        merges = merges and (len(reads) == 2 or rules.quantized_outputs)  # a constant is no residual
        # ONNX Runtime multiplies channels by one value a pixel value by value in 8 bits: 0.99 ms for 16 at 256².
        gated = rules.quantized_outputs and any(known.get(name, ())[1:2] == (1,) for name in reads)
        merges = merges and not gated
        if (node.op_type in rules.followers and all(quantized)) or merges:
            placed[node.name] = node
    return list(placed.values())


def tensor_groups(model: ModelProto, stage: str, target: Target) -> dict[str, str]:
    """Return the layer group of each activation that a quantisable layer writes, or is the first to read."""
    groups: dict[str, str] = {}
    for name, nodes in quantizable(model, stage, target).items():
        groups.update((output, name) for node in nodes for output in node.output)
    for name, nodes in quantizable(model, stage, target).items():
        for node in nodes:
            groups.setdefault(node.input[0], name)
    return groups


def _activations(node: NodeProto) -> list[str]:
    """Return the inputs that carry values; those of a resize beyond the first are sizes, computed or not."""
    return [name for name in (node.input[:1] if node.op_type == "Resize" else node.input) if name]


def placed_tensors(model: ModelProto, stage: str, target: Target) -> list[str]:
    """Return every activation that could get Q and DQ: those whose ranges are needed."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names: dict[str, None] = {}
    for node in placed_nodes(model, stage, target, quantizable(model, stage, target)):
        reads = [name for name in _activations(node) if name not in constants]
        names.update(dict.fromkeys([*reads, *node.output]))
    return list(names)
