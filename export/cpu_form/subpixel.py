"""Convolutions of features that were enlarged by nearest neighbour, computed at the small size.

Sub-pixel convolution (Shi et al. 2016), with the kernels that follow from that of the large size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from ..graph import attribute
from .edits import Wiring, add_constants, copy_of, declare_shape, drop_unread, replace_node

# Which rows (or columns) of a 3×3 kernel meet the first and the second of the 2 small pixels that an output reads:
# an even output lies between its own pixel and the one before, an odd one between its own and the next.
TAPS = (((0,), (1, 2)), ((0, 1), (2,)))


def split_joined_inputs(model: ModelProto) -> None:
    """Write a convolution of enlarged features joined to others as the sum of a convolution of each.

    The first can then be computed before the enlargement. The graph is changed in place.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        joined = wiring.producers.get(node.input[0]) if is_plain_convolution(node, wiring) else None
        if joined is None or joined.op_type != "Concat" or attribute(joined, "axis", None) != 1:
            continue
        enlarged = any(is_doubling(wiring.producers.get(name), wiring) for name in joined.input)
        channels, *_ = wiring.image_shape(joined.input[0])
        weight = node.input[1]
        known = channels and all(wiring.image_shape(node.output[0]))
        alone = wiring.only_reader(joined) is not None and len(wiring.readers[weight]) == 1
        if not (enlarged and known and alone and len(joined.input) == 2 and weight.endswith(".weight")):
            continue
        parts = []
        for k, kernel in enumerate(np.split(wiring.constants[weight], [channels], axis=1)):
            part = copy_of(node, joined.input[k], f"{node.output[0]}_part{k}")
            part.input[1] = f"{weight.removesuffix('.weight')}.part{k}.weight"  # tells the layer, as before
            add_constants(model, {part.input[1]: kernel})
            declare_shape(model, part.output[0], wiring.image_shape(node.output[0]))
            parts.append(part)
        del parts[1].input[2:]  # one bias is enough
        names = [part.output[0] for part in parts]
        replace_node(model, node, [*parts, helper.make_node("Add", names, [node.output[0]], f"{node.name}_parts")])
    drop_unread(model)


def convolve_small(model: ModelProto) -> None:
    """Write a 3×3 convolution in float of features that nearest neighbour has enlarged 2× as four of 2×2.

    Each makes the outputs of one parity of row and column at the small size, and reads taps that fell on equal pixels
    as their sum: 4 products instead of 9, and a quarter of the pixels to read. The results are interleaved. The graph
    is changed in place.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        resize = wiring.producers.get(node.input[0]) if is_plain_convolution(node, wiring) else None
        kernel = wiring.constants.get(node.input[1]) if resize is not None else None
        if resize is None or kernel is None or not is_doubling(resize, wiring):
            continue
        _, height, width = wiring.image_shape(resize.output[0])
        if not height * width:
            continue
        name = f"{node.name}_subpixel"
        new = []
        for row in range(2):
            for column in range(2):
                part = f"{name}_{row}{column}"
                add_constants(model, {f"{part}.weight": phase_kernel(kernel, row, column)})
                reads, pads = [resize.input[0], f"{part}.weight", *node.input[2:]], phase_pads(row, column)
                new.append(helper.make_node("Conv", reads, [f"{part}_z"], part, pads=pads))
        new += interleaved(model, name, node.output[0], (height, width, kernel.shape[0]))
        replace_node(model, node, new)
    drop_unread(model)


def is_plain_convolution(node: NodeProto, wiring: Wiring) -> bool:
    """Return whether a node is a 3×3 convolution, float or of DQ, that keeps height and width."""
    if node.op_type != "Conv":
        return False
    defaults = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    plain = all(attribute(node, key, value) == value for key, value in defaults.items())
    source = wiring.producers.get(node.input[1])
    kernel = wiring.constants.get(node.input[1] if source is None else source.input[0])
    return plain and attribute(node, "pads", [0] * 4) == [1] * 4 and kernel is not None and kernel.shape[2:] == (3, 3)


def is_doubling(node: NodeProto | None, wiring: Wiring) -> bool:
    """Return whether a node enlarges 2× by nearest neighbour, for one reader."""
    return node is not None and wiring.repetition(node) == (2, 2) and wiring.only_reader(node) is not None


def phase_kernel(kernel: NDArray[Any], row: int, column: int) -> NDArray[np.float32]:
    """Return the 2×2 kernel of the outputs of one parity, from a 3×3 kernel [O, I, 3, 3]."""
    rows = np.stack([kernel[:, :, list(taps)].sum(axis=2) for taps in TAPS[row]], axis=2)
    return np.stack([rows[..., list(taps)].sum(axis=3) for taps in TAPS[column]], axis=3).astype(np.float32)


def phase_pads(row: int, column: int) -> list[int]:
    """Return the pads of the convolution by :func:`phase_kernel`."""
    return [1 - row, 1 - column, row, column]


def interleaved(model: ModelProto, name: str, output: str, shape: tuple[int, int, int]) -> list[NodeProto]:
    """Return the nodes that lay four quarters ``name``_``rc``_z side by side, pixels with their channels together.

    Args:
        model: gets the constants that they read.
        name: name of the quarters, without row and column.
        output: tensor to write.
        shape: height, width and channels of the whole.
    """
    height, width, channels = shape
    nodes = []
    for row in range(2):
        for column in range(2):
            part = f"{name}_{row}{column}"
            nodes.append(helper.make_node("Transpose", [f"{part}_z"], [f"{part}_t"], f"{part}_last", perm=[0, 2, 3, 1]))
        # Two columns of C channels are one of 2 C; a row of all columns and channels is one value of the next step.
        line = f"{name}_{row}"
        columns = [f"{line}0_t", f"{line}1_t"]
        nodes.append(helper.make_node("Concat", columns, [line], f"{line}_columns", axis=3))
        nodes.append(helper.make_node("Reshape", [line, f"{name}_row"], [f"{line}_r"], f"{line}_row"))
    add_constants(
        model,
        {
            f"{name}_row": np.array([0, height // 2, 1, width * channels], np.int64),
            f"{name}_shape": np.array([0, height, width, channels], np.int64),
        },
    )
    return [
        *nodes,
        helper.make_node("Concat", [f"{name}_0_r", f"{name}_1_r"], [f"{name}_rows"], f"{name}_join", axis=2),
        helper.make_node("Reshape", [f"{name}_rows", f"{name}_shape"], [f"{name}_all"], f"{name}_reshape"),
        helper.make_node("Transpose", [f"{name}_all"], [output], f"{name}_first", perm=[0, 3, 1, 2]),
    ]
