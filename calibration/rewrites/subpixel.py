"""Convolutions of features that were enlarged by nearest neighbour, computed at the small size.

Sub-pixel convolution (Shi et al. 2016), with the kernels that follow from that of the large size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from showface.export.graph import attribute

from ..placement import RULES
from ..settings import Target
from .edits import Wiring, add_constants, copy_of, drop_unread, replace_node

WEIGHT_LIMIT = RULES[Target.CPU].weight_limit
BIAS_LIMIT = 2**30  # of biases in steps of input times weight; they have 32 bits
WEIGHT_SUFFIX = "_quantized"  # that ONNX Runtime's quantiser gives to constants
# Which rows (or columns) of a 3×3 kernel meet the first and the second of the 2 small pixels that an output reads:
# an even output lies between its own pixel and the one before, an odd one between its own and the next.
TAPS = (((0,), (1, 2)), ((0, 1), (2,)))


def convolve_small(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write a 3×3 convolution of features that nearest neighbour has enlarged 2× as four of 2×2 at the small size.

    Each makes the outputs of one parity of row and column, and reads taps that fell on equal pixels as their
    sum: 4 products instead of 9, and a quarter of the pixels to read. The results are interleaved. The Q/DQ graph is
    changed in place; ``weights`` are constants of the float graph, whose sums are quantised anew.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        ends = wiring.ends(node) if is_plain_convolution(node, wiring) else None
        resize = _resize_before(ends[0], wiring) if ends else None
        constants = _float_constants(node, wiring, weights) if resize else []
        if ends is None or resize is None or not constants:
            continue
        _, height, width = wiring.image_shape(resize.output[0])
        if not height * width:
            continue
        dequantize, quantize = ends
        name, small = f"{node.name}_subpixel", wiring.producers[resize.input[0]].input[0]
        new = []
        for row in range(2):
            for column in range(2):
                part = f"{name}_{row}{column}"
                reads = [copy_of(dequantize, small, f"{part}_x")]
                phase = [_phase_kernel(constants[0], row, column), *constants[1:]]
                reads += _constants_in_8_bits(model, part, phase, node, wiring)
                pads = [1 - row, 1 - column, row, column]
                convolve = helper.make_node("Conv", [each.output[0] for each in reads], [f"{part}_y"], part, pads=pads)
                new += [*reads, convolve, copy_of(quantize, f"{part}_y", f"{part}_z")]
        shape = (height, width, constants[0].shape[0])
        replace_node(model, quantize, _interleaved(model, name, quantize.output[0], shape))
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


def _resize_before(dequantize: NodeProto, wiring: Wiring) -> NodeProto | None:
    """Return the Resize in 8 bits that enlarges 2× for ``dequantize`` alone, if that is what it reads."""
    quantize = wiring.producers.get(dequantize.input[0])
    resize = wiring.producers.get(quantize.input[0]) if quantize is not None else None
    if quantize is None or resize is None or not is_doubling(resize, wiring):
        return None
    ends = wiring.ends(resize)
    alone = wiring.only_reader(quantize) is not None and wiring.only_reader(dequantize) is not None
    return resize if ends is not None and ends[0].input[1:] == ends[1].input[1:] and alone else None


def _float_constants(node: NodeProto, wiring: Wiring, weights: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return kernel and, where there is one, bias of a quantised convolution in float; nothing if one is unknown."""
    found = []
    for edge in filter(None, node.input[1:]):
        dequantize = wiring.producers.get(edge)
        stored = "" if dequantize is None else dequantize.input[0].removesuffix(WEIGHT_SUFFIX)
        if stored not in weights:
            return []
        found.append(weights[stored])
    return found


def _phase_kernel(kernel: NDArray[Any], row: int, column: int) -> NDArray[np.float32]:
    """Return the 2×2 kernel of the outputs of one parity, from a 3×3 kernel [O, I, 3, 3]."""
    rows = np.stack([kernel[:, :, list(taps)].sum(axis=2) for taps in TAPS[row]], axis=2)
    return np.stack([rows[..., list(taps)].sum(axis=3) for taps in TAPS[column]], axis=3).astype(np.float32)


def _constants_in_8_bits(
    model: ModelProto, part: str, constants: list[NDArray[Any]], node: NodeProto, wiring: Wiring
) -> list[NodeProto]:
    """Add a kernel, and a bias in 32 bits, to the constants; return copies of the DQs of ``node`` that read them."""
    kernel, *biases = constants
    input_step = float(wiring.constants[wiring.producers[node.input[0]].input[1]])
    step = np.abs(kernel).max(axis=(1, 2, 3)) / WEIGHT_LIMIT
    for bias in biases:
        step = np.maximum(step, np.abs(bias) / input_step / BIAS_LIMIT)
    step = np.where(step > 0, step, 1.0).astype(np.float32)
    steps = [step, step * np.float32(input_step)]
    values = [np.rint(kernel / step[:, None, None, None]).astype(np.int8)]
    values += [np.rint(bias / steps[1]).astype(np.int32) for bias in biases]
    reads = []
    for name, value, scale, edge in zip(("weight", "bias"), values, steps, filter(None, node.input[1:]), strict=False):
        stored = f"{part}_{name}"
        add_constants(model, {stored: value, f"{stored}_scale": scale})
        reads.append(copy_of(wiring.producers[edge], stored, f"{stored}_dq"))
        reads[-1].input[1] = f"{stored}_scale"
    return reads


def _interleaved(model: ModelProto, name: str, output: str, shape: tuple[int, int, int]) -> list[NodeProto]:
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
