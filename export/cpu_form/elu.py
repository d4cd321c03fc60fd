"""Elu as the networks write it, max(x, 0) + (exp(-max(-x, 0)) - 1), with fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, NodeProto, helper

from .edits import Wiring, add_constants, drop_unread, replace_node

HALVES = (("Relu",), ("Sub", "Exp", "Neg", "Relu", "Neg"))  # from the sum of the two upwards


def clip_elu(model: ModelProto) -> None:
    """Take max(x, 0) and min(x, 0) as one Clip each; the values are the same to the last bit.

    ONNX Runtime draws the order of a convolution's channels through a Relu but not through a Neg, and so reorders both.
    The graph is changed in place.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        halves = elu_halves(node, wiring, HALVES)
        if halves is None:
            continue
        above, below = halves
        read, name, zero = above[-1].input[0], f"{node.name}_clip", f"{node.name}_zero"
        add_constants(model, {zero: np.float32(0)})
        new = [
            helper.make_node("Clip", [read, zero], [f"{name}_above"], f"{name}_above"),
            helper.make_node("Clip", [read, "", zero], [f"{name}_below"], f"{name}_below"),
            helper.make_node("Exp", [f"{name}_below"], [f"{name}_exp"], f"{name}_exp"),
            helper.make_node("Sub", [f"{name}_exp", below[0].input[1]], [f"{name}_less"], f"{name}_less"),
            helper.make_node("Add", [f"{name}_above", f"{name}_less"], [node.output[0]], node.name),
        ]
        replace_node(model, node, new)
    drop_unread(model)


def elu_halves(
    node: NodeProto, wiring: Wiring, chains: tuple[Iterable[str], Iterable[str]]
) -> tuple[list[NodeProto], list[NodeProto]] | None:
    """Return the nodes of the two halves of an Elu, from its sum ``node`` upwards; None for other nodes.

    Args:
        node: to be looked at.
        wiring: of its graph.
        chains: the operators of max(x, 0) and of exp(min(x, 0)) - 1, from the sum upwards.
    """
    if node.op_type != "Add":
        return None
    above, below = (_climb(name, chain, wiring) for name, chain in zip(node.input, chains, strict=True))
    if not above or not below or above[-1].input[0] != below[-1].input[0]:
        return None
    subtract = next(each for each in below if each.op_type == "Sub")
    one = wiring.constants.get(subtract.input[1])
    return (above, below) if one is not None and (one == 1).all() else None


def _climb(name: str, operators: Iterable[str], wiring: Wiring) -> list[NodeProto]:
    """Return the nodes that lead to tensor ``name`` from its maker upwards; none if they are not ``operators``."""
    nodes: list[NodeProto] = []
    for operator in operators:
        node = wiring.producers.get(name)
        if node is None or node.op_type != operator:
            return []
        nodes.append(node)
        name = node.input[0]
    return nodes
