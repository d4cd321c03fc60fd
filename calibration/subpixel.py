"""Convolutions of repeated pixels, computed before the repetition (Shi et al. 2016, sub-pixel convolution)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from .graph_edits import Wiring, add_constants, copy_of, replace_node
from .graphs import attribute, drop_unread

WEIGHT_LIMIT = 64  # of weights in 7 bits, as ONNX Runtime's quantiser has it
BIAS_LIMIT = 2**30  # of biases in steps of input times weight
WEIGHT_SUFFIX = "_quantized"  # that it gives them
PLAIN = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "group": 1}
# Which rows (or columns) of a 3×3 kernel meet the first and the second of the 2 pixels that an output reads:
# an even output lies between its own pixel and the one before, an odd one between its own and the next.
TAPS = (((0,), (1, 2)), ((0, 1), (2,)))


def part_joined_inputs(model: ModelProto) -> None:
    """Write a convolution of repeated pixels joined to others as the sum of one of each, in a float graph.

    The first can then be computed before the repetition, and what it is joined to is in 8 bits already.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        joined = wiring.source.get(node.input[0]) if _keeps_size(node) else None
        if joined is None or joined.op_type != "Concat" or len(joined.input) != 2 or wiring.only_reader(joined) is None:
            continue
        channels = wiring.sizes.get(joined.input[0], (0, 0))[1]
        if not channels or not any(_doubles(wiring.source.get(name), wiring) for name in joined.input):
            continue
        new = []
        for k, kernel in enumerate(np.split(wiring.constants[node.input[1]], [channels], axis=1)):
            part = copy_of(node, joined.input[k], f"{node.output[0]}_part{k}")
            part.input[1] = f"{node.input[1].removesuffix('.weight')}.part{k}.weight"  # layers are named by weights
            add_constants(model, {part.input[1]: kernel})
            new.append(part)
        del new[1].input[2:]  # one bias is enough
        names = [part.output[0] for part in new]
        replace_node(model, node, [*new, helper.make_node("Add", names, [node.output[0]], f"{node.name}_parts")])
    drop_unread(model)


def convolve_before_repeating(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write a 3×3 convolution of pixels that were repeated twice as four of 2×2 before the repetition.

    Each makes the outputs of one parity of row and column, and reads taps that fell on equal pixels as their
    sum: 4 products instead of 9, and a quarter of the pixels to read. The results are laid side by side.

    Args:
        model: a Q/DQ graph, changed in place.
        weights: constants of the float graph, whose sums are quantised anew.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        ends = wiring.ends(node) if _keeps_size(node) else None
        resize = _repetition_before(ends[0], wiring) if ends else None
        if ends is None or resize is None:
            continue
        dequantize, quantize = ends
        kernel, bias = _float_constants(node, wiring, weights)
        _, _, height, width = wiring.sizes.get(resize.output[0], (0, 0, 0, 0))
        if kernel is None or not height * width:
            continue
        name, small = f"{node.name}_subpixel", wiring.source[resize.input[0]].input[0]
        new = []
        for row in range(2):
            for column in range(2):
                part = f"{name}_{row}{column}"
                reads = [copy_of(dequantize, small, f"{part}_x")]
                reads += _constants_in_8_bits(model, part, _phase(kernel, row, column), bias, node, wiring)
                pads = [1 - row, 1 - column, row, column]
                convolve = helper.make_node("Conv", [each.output[0] for each in reads], [f"{part}_y"], part, pads=pads)
                new += [*reads, convolve, copy_of(quantize, f"{part}_y", f"{part}_z")]
        replace_node(model, quantize, _interleaved(model, name, quantize.output[0], (height, width, kernel.shape[0])))
        replace_node(model, node, new)
    drop_unread(model)


def _keeps_size(node: NodeProto) -> bool:
    """Return whether a node is a convolution of 3×3 pixels that makes as many as it reads."""
    return node.op_type == "Conv" and all(attribute(node, key, value) == value for key, value in PLAIN.items())


def _doubles(node: NodeProto | None, wiring: Wiring) -> bool:
    """Return whether a node repeats each pixel in rows and columns, for one reader."""
    return node is not None and wiring.repetition(node) == (2, 2) and wiring.only_reader(node) is not None


def _repetition_before(dequantize: NodeProto, wiring: Wiring) -> NodeProto | None:
    """Return the Resize in 8 bits that doubles the pixels for ``dequantize`` alone, if that is what it reads."""
    quantize = wiring.source.get(dequantize.input[0])
    resize = wiring.source.get(quantize.input[0]) if quantize is not None else None
    if quantize is None or resize is None or not _doubles(resize, wiring):
        return None
    ends = wiring.ends(resize)
    alone = wiring.only_reader(quantize) is not None and wiring.only_reader(dequantize) is not None
    return resize if ends is not None and ends[0].input[1:] == ends[1].input[1:] and alone else None


def _float_constants(
    node: NodeProto, wiring: Wiring, weights: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Return kernel and bias of a quantised convolution in float; None what there is not."""
    stored = [wiring.source[edge].input[0] if edge in wiring.source else "" for edge in node.input[1:]]
    kernel, bias = ([weights.get(name.removesuffix(WEIGHT_SUFFIX)) for name in stored] + [None])[:2]
    return kernel, bias


def _phase(kernel: NDArray[Any], row: int, column: int) -> NDArray[np.float32]:
    """Return the 2×2 kernel of the outputs of one parity, from a 3×3 kernel [O, I, 3, 3]."""
    rows = np.stack([kernel[:, :, list(taps)].sum(axis=2) for taps in TAPS[row]], axis=2)
    return np.stack([rows[..., list(taps)].sum(axis=3) for taps in TAPS[column]], axis=3).astype(np.float32)


def _constants_in_8_bits(
    model: ModelProto,
    place: str,
    kernel: NDArray[np.float32],
    bias: NDArray[Any] | None,
    node: NodeProto,
    wiring: Wiring,
) -> list[NodeProto]:
    """Add a kernel, and a bias in 32 bits, to the constants; return copies of the DQs of ``node`` that read them."""
    input_scale = float(wiring.constants[wiring.source[node.input[0]].input[1]])
    step = np.abs(kernel).max(axis=(1, 2, 3)) / WEIGHT_LIMIT
    if bias is not None:
        step = np.maximum(step, np.abs(bias) / input_scale / BIAS_LIMIT)
    step = np.where(step > 0, step, 1.0)
    values = {f"{place}_weight": np.rint(kernel / step[:, None, None, None]).astype(np.int8)}
    steps = {f"{place}_weight": step.astype(np.float32)}
    if bias is not None:
        steps[f"{place}_bias"] = (step * input_scale).astype(np.float32)
        values[f"{place}_bias"] = np.rint(bias / steps[f"{place}_bias"]).astype(np.int32)
    reads = []
    for name, edge in zip(values, node.input[1:], strict=True):
        add_constants(model, {name: values[name], f"{name}_scale": steps[name]})
        reads.append(copy_of(wiring.source[edge], name, f"{name}_dq"))
        reads[-1].input[1] = f"{name}_scale"
    return reads


def _interleaved(model: ModelProto, name: str, output: str, shape: tuple[int, int, int]) -> list[NodeProto]:
    """Return the nodes that lay four quarters ``name``_``rc``_z side by side, pixels with their channels together."""
    height, width, channels = shape
    nodes = []
    for row in range(2):
        for column in range(2):
            part = f"{name}_{row}{column}"
            nodes.append(helper.make_node("Transpose", [f"{part}_z"], [f"{part}_t"], f"{part}_last", perm=[0, 2, 3, 1]))
        # Two columns of C channels are one of 2 C; a row of all columns and channels is one value of the next step.
        columns = [f"{name}_{row}0_t", f"{name}_{row}1_t"]
        nodes.append(helper.make_node("Concat", columns, [f"{name}_{row}"], f"{name}_{row}_columns", axis=3))
        nodes.append(
            helper.make_node("Reshape", [f"{name}_{row}", f"{name}_row"], [f"{name}_{row}_r"], f"{name}_{row}_row")
        )
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
