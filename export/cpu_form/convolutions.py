"""Convolutions that cost more than their products: of few outputs, and of unshuffled pixels."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

import numpy as np
from onnx import ModelProto, NodeProto, helper

from ..graph import attribute
from .edits import Wiring, add_constants, copy_of, declare_shape, drop_unread, replace_node

BLOCK = 16  # output channels that ONNX Runtime's kernels compute at a time with AVX-512; fewer cost as much
MOST_OUTPUTS = 4  # that are few
MOST_ROWS = 8
UNSHUFFLE = [0, 1, 3, 5, 2, 4]  # [B, C, y, dy, x, dx] to [B, C, dy, dx, y, x]


def convolve_rows(model: ModelProto) -> None:
    """Let a convolution of few outputs compute several rows of them at a time, as channels of one pixel.

    The kernel of row r is the kernel shifted by r strides in a taller one of zeros, so that the values are the same. R
    rows at a time cost R times less, and (k + s (R - 1)) / k times more, for k rows of the kernel and the stride s.
    The graph is changed in place.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        kernel = wiring.constants.get(node.input[1]) if node.op_type == "Conv" else None
        if kernel is None or kernel.ndim != 4 or kernel.shape[2] == 1 or not _is_dense(node):
            continue
        outputs, inputs, tall, wide = kernel.shape
        _, height, width = wiring.image_shape(node.output[0])
        rows = gcd(height, MOST_ROWS, 1 << (BLOCK // outputs).bit_length() - 1) if outputs <= MOST_OUTPUTS else 1
        if rows < 2 or not width or not _has_own_constants(node, wiring):
            continue
        down, right = attribute(node, "strides", [1, 1])
        shifted = np.zeros((outputs, rows, inputs, tall + down * (rows - 1), wide), np.float32)
        for row in range(rows):
            shifted[:, row, :, row * down : row * down + tall] = kernel
        weight = f"{node.input[1].removesuffix('.weight')}.rows.weight"  # tells the layer, as before
        name = f"{node.name}_rows"
        constants = {
            weight: shifted.reshape(-1, *shifted.shape[2:]),
            f"{name}_apart": np.array([0, outputs, rows, height // rows, width], np.int64),
            f"{name}_whole": np.array([0, outputs, height, width], np.int64),
        }
        convolve = copy_of(node, node.input[0], name)
        convolve.input[1] = weight
        if len(node.input) > 2:
            convolve.input[2] = f"{name}_bias"
            constants[f"{name}_bias"] = np.repeat(wiring.constants[node.input[2]], rows)
        _set(convolve, kernel_shape=shifted.shape[3:], strides=(down * rows, right))
        add_constants(model, constants)
        declare_shape(model, name, (outputs * rows, height // rows, width))
        new = [
            convolve,
            helper.make_node("Reshape", [name, f"{name}_apart"], [f"{name}_0"], f"{name}_0"),
            helper.make_node("Transpose", [f"{name}_0"], [f"{name}_1"], f"{name}_1", perm=[0, 1, 3, 2, 4]),
            helper.make_node("Reshape", [f"{name}_1", f"{name}_whole"], [node.output[0]], f"{name}_2"),
        ]
        replace_node(model, node, new)
    drop_unread(model)


def convolve_shuffled(model: ModelProto) -> None:
    """Write a convolution of unshuffled pixels as one of the pixels where they lie, with a larger kernel and stride.

    Its products are the same. The graph is changed in place.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        kernel = wiring.constants.get(node.input[1]) if node.op_type == "Conv" else None
        steps = _unshuffling(node, wiring) if kernel is not None and _is_dense(node) else None
        if kernel is None or steps is None or not _has_own_constants(node, wiring):
            continue
        source, factor = steps
        outputs, _, tall, wide = kernel.shape
        apart = kernel.reshape(outputs, -1, factor, factor, tall, wide)
        whole = apart.transpose(0, 1, 4, 2, 5, 3).reshape(outputs, -1, tall * factor, wide * factor)
        weight = f"{node.input[1].removesuffix('.weight')}.shuffled.weight"
        add_constants(model, {weight: whole})
        convolve = copy_of(node, source, node.output[0])
        convolve.name, convolve.input[1] = node.name, weight
        sizes = {"strides": [1, 1], "pads": [0] * 4}
        scaled = {key: [factor * size for size in attribute(node, key, value)] for key, value in sizes.items()}
        _set(convolve, kernel_shape=whole.shape[2:], **scaled)
        replace_node(model, node, [convolve])
    drop_unread(model)


def _is_dense(node: NodeProto) -> bool:
    """Return whether a convolution has no groups, holes or pads that are computed."""
    plain = {"group": 1, "dilations": [1, 1], "auto_pad": b"NOTSET"}
    return all(attribute(node, key, value) == value for key, value in plain.items())


def _has_own_constants(node: NodeProto, wiring: Wiring) -> bool:
    """Return whether weight and bias of a convolution are constants, and the weight, which names its layer, its own."""
    weight = node.input[1]
    own = weight.endswith(".weight") and len(wiring.readers[weight]) == 1
    return own and all(name in wiring.constants for name in node.input[1:])


def _unshuffling(node: NodeProto, wiring: Wiring) -> tuple[str, int] | None:
    """Return the pixels that a node reads unshuffled, and the factor by which their height and width shrink."""
    join = wiring.producers.get(node.input[0])
    turn = wiring.producers.get(join.input[0]) if join is not None and join.op_type == "Reshape" else None
    if join is None or turn is None or turn.op_type != "Transpose" or attribute(turn, "perm", []) != UNSHUFFLE:
        return None
    split = wiring.producers.get(turn.input[0])
    if split is None or split.op_type != "Reshape" or split.input[1] not in wiring.constants:
        return None
    shape = wiring.constants[split.input[1]]
    channels, height, width = wiring.image_shape(split.input[0])
    factor = int(shape[3]) if shape.shape == (6,) else 0
    if not factor or shape[1:].tolist() != [channels, height // factor, factor, width // factor, factor]:
        return None
    shrunk = (channels * factor**2, height // factor, width // factor)
    return (split.input[0], factor) if wiring.image_shape(join.output[0]) == shrunk else None


def _set(node: NodeProto, **sizes: Iterable[int]) -> None:
    """Give a node attributes, in the place of those of their names."""
    kept = [entry for entry in node.attribute if entry.name not in sizes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, list(value)) for name, value in sizes.items())])
