"""Partial convolutions in a form that 8 bits lose less of: normalisation in the weights, mask before the rectifier."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper

from ..graph import attribute
from .edits import Wiring, add_constants, drop_unread, replace_constant, replace_node

RECTIFIERS = ("Relu", "LeakyRelu")


def ready_partial_convolutions(model: ModelProto) -> None:
    """Rewrite the partial convolutions of a float graph in place; the function stays the same but for rounding."""
    _fold_normalisations(model)
    _mask_before_rectifying(model)


def _fold_normalisations(model: ModelProto) -> None:
    """Multiply weights and biases by what the normalisation behind a partial convolution multiplies channels by.

    ``norm(scale * conv(x) + bias)`` is ``scale * (gain * conv(x)) + (bias - mean) * gain + shift``, for the scale
    k² / count is the same for all channels of a pixel. Weights have a step a channel and lose nothing. What comes
    out of the convolution has one step for all channels, and now all vary alike.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        found = _partial_before(node, wiring) if node.op_type == "BatchNormalization" else None
        if found is None:
            continue
        convolutions, add, bias = found
        weight, shift, mean, variance = (wiring.constants[name].astype(np.float64) for name in node.input[1:])
        gain = weight / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        for convolution in convolutions:
            name = convolution.input[1]
            scaled = wiring.constants[name] * gain.reshape(-1, 1, 1, 1)
            replace_constant(model, name, scaled.astype(np.float32))
        folded = (wiring.constants[bias].reshape(-1) - mean) * gain + shift
        name = f"{node.name}_folded"
        add_constants(model, {name: folded.astype(np.float32).reshape(1, -1, 1, 1)})
        response = next(read for read in add.input if read != bias)
        model.graph.node.remove(add)
        replace_node(model, node, [helper.make_node("Add", [response, name], [node.output[0]], node.name)])
    drop_unread(model)


def _partial_before(node: NodeProto, wiring: Wiring) -> tuple[list[NodeProto], NodeProto, str] | None:
    """Return the convolutions whose scaled sum ``node`` normalises, the addition of the bias, and the bias."""
    add = _alone(node.input[0], "Add", wiring)
    biases = [name for name in add.input if name in wiring.constants] if add else []
    if add is None or len(biases) != 1:
        return None
    scale = _alone(next(name for name in add.input if name != biases[0]), "Mul", wiring)
    responses = [name for name in scale.input if wiring.image_shape(name)[0] > 1] if scale else []
    if scale is None or len(responses) != 1:
        return None
    joined = _alone(responses[0], "Add", wiring)
    parts = [_alone(name, "Conv", wiring) for name in (joined.input if joined else responses)]
    convolutions = [part for part in parts if part is not None and _scalable(part, wiring)]
    return (convolutions, add, biases[0]) if len(convolutions) == len(parts) else None


def _alone(name: str, operator: str, wiring: Wiring) -> NodeProto | None:
    """Return the node of this operator that writes tensor ``name``, if one node alone reads it."""
    node = wiring.producers.get(name)
    return node if node is not None and node.op_type == operator and wiring.only_reader(node) else None


def _scalable(convolution: NodeProto, wiring: Wiring) -> bool:
    """Return whether a convolution has no bias, and a weight that no other node reads."""
    weight = convolution.input[1]
    return len(convolution.input) == 2 and weight in wiring.constants and len(wiring.readers[weight]) == 1


def _mask_before_rectifying(model: ModelProto) -> None:
    """Write ``rectify(x) * mask`` as ``rectify(x * mask)``, which is the same where the mask is 0 or 1.

    ONNX Runtime drops a Relu whose output is quantised from 0 upwards: quantising clips as well.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        if node.op_type != "Mul":
            continue
        alone = (_alone(node.input[0], operator, wiring) for operator in RECTIFIERS)
        rectify = next((found for found in alone if found is not None), None)
        if rectify is None or not _is_mask(wiring.producers.get(node.input[1]), wiring):
            continue
        name = f"{rectify.name}_masked"
        masked = helper.make_node("Mul", [rectify.input[0], node.input[1]], [name], name)
        model.graph.node.remove(rectify)
        rectify.input[0], rectify.output[0] = name, node.output[0]
        replace_node(model, node, [masked, rectify])


def _is_mask(node: NodeProto | None, wiring: Wiring) -> bool:
    """Return whether a node writes comparisons as 0 and 1."""
    source = wiring.producers.get(node.input[0]) if node is not None and node.op_type == "Cast" else None
    return source is not None and source.op_type in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
