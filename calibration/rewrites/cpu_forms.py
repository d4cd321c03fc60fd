"""Equal forms of what ONNX Runtime's CPU kernels are slow at in 8 bits; each is applied where its pattern stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from showface.export.cpu_form.edits import Wiring, add_constants, copy_of, drop_unread, replace_node
from showface.export.cpu_form.elu import clip_elu, elu_halves
from showface.export.cpu_form.subpixel import convolve_small
from showface.export.graph import attribute

from .subpixel import convolve_small_in_8_bits

ALIGNMENT = 4  # input channels that the 8-bit convolution kernel takes at a time
ELU_SCALE = 1 / 255  # of exp(x) - 1 for x <= 0, which lies in (-1, 0]
# What computes max(x, 0) and exp(-max(-x, 0)) - 1 in 8 bits, from the sum of the two upwards.
PAIR = ("DequantizeLinear", "QuantizeLinear")
ELU_HALVES = ((*PAIR, "Relu"), (*PAIR, "Sub", "Exp", "Neg", "Relu", "Neg"))


def use_fast_forms(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Rewrite a Q/DQ graph for the CPU in place; ``weights`` are the constants of the float graph behind it."""
    _quantize_before_repeating(model)
    convolve_small_in_8_bits(model, weights)
    _pad_input_channels(model)
    _repeat_pixels(model)
    _resize_channels_last(model)
    _elu_in_8_bits(model)
    convolve_small(model)
    clip_elu(model)
    drop_unread(model)


def _quantize_before_repeating(model: ModelProto) -> None:
    """Quantise pixels before a nearest upsampling in float repeats them: the values are the same, and fewer."""
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        if wiring.repetition(node) is None or wiring.ends(node) is not None:
            continue
        follow = wiring.only_reader(node)
        if follow is None or follow.op_type != "QuantizeLinear":
            continue
        quantize, name = copy_of(follow, node.input[0], f"{node.name}_q"), f"{node.name}_dq"
        dequantize = helper.make_node("DequantizeLinear", [quantize.output[0], *quantize.input[1:]], [name], name)
        node.input[0] = name
        replace_node(model, node, [quantize, dequantize, node])


def _pad_input_channels(model: ModelProto) -> None:
    """Give convolutions of unaligned input channels zero weights for as many as lack.

    Without them the kernel that reads pixels where they lie is ruled out and the input is unfolded first, k² values for
    one where the stride is 1: 35 to 16 channels at 256² take 8.1 ms, 36 take 4.3 ms.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        pair = [wiring.producers.get(name) for name in node.input[:2]] if node.op_type == "Conv" else []
        if not pair or any(each is None or each.op_type != "DequantizeLinear" for each in pair):
            continue
        activation, weight = (each for each in pair if each is not None)
        values = wiring.constants[weight.input[0]]
        missing = -values.shape[1] % ALIGNMENT
        if not missing or attribute(node, "group", 1) != 1 or max(attribute(node, "strides", [1])) > 1:
            continue
        name = f"{node.name}_aligned"
        padded = np.pad(values, [(0, 0), (0, missing), (0, 0), (0, 0)])
        pads = np.array([0, 0, 0, 0, 0, missing, 0, 0], np.int64)
        add_constants(model, {f"{name}_weight": padded, f"{name}_pads": pads})
        new = [
            helper.make_node("Pad", [activation.input[0], f"{name}_pads"], [f"{name}_q"], f"{name}_pad"),
            copy_of(activation, f"{name}_q", f"{name}_x"),
            copy_of(weight, f"{name}_weight", f"{name}_w"),
        ]
        node.input[0], node.input[1] = f"{name}_x", f"{name}_w"
        replace_node(model, node, [*new, node])


def _repeat_pixels(model: ModelProto) -> None:
    """Write nearest upsampling by whole factors as a repetition of pixels with their channels side by side.

    ONNX Runtime draws the convolutions' order of axes through a Resize, whose kernel then goes value by value:
    5.2 ms for 128² to 256² of 64 channels, against 0.4 ms.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        times = wiring.repetition(node)
        ends = wiring.ends(node) if times else None
        if times is None or ends is None or ends[0].input[1:] != ends[1].input[1:]:
            continue
        (down, right), (start, end) = times, ends
        channels, height, width = wiring.image_shape(_before(start, wiring))
        if not channels * height * width:
            continue
        name = f"{node.name}_repeat"
        add_constants(
            model,
            {
                f"{name}_axes": np.array([2, 4], np.int64),
                f"{name}_factors": np.array([1, 1, down, 1, right, 1], np.int64),
                f"{name}_shape": np.array([0, down * height, right * width, channels], np.int64),
            },
        )
        new = [
            helper.make_node("Transpose", [start.input[0]], [f"{name}_0"], f"{name}_last", perm=[0, 2, 3, 1]),
            helper.make_node("Unsqueeze", [f"{name}_0", f"{name}_axes"], [f"{name}_1"], f"{name}_unsqueeze"),
            helper.make_node("Tile", [f"{name}_1", f"{name}_factors"], [f"{name}_2"], f"{name}_tile"),
            helper.make_node("Reshape", [f"{name}_2", f"{name}_shape"], [f"{name}_3"], f"{name}_reshape"),
            helper.make_node("Transpose", [f"{name}_3"], [end.output[0]], f"{name}_first", perm=[0, 3, 1, 2]),
        ]
        model.graph.node.remove(end)
        replace_node(model, node, new)


def _resize_channels_last(model: ModelProto) -> None:
    """Interpolate pixel by pixel, in float: 1.9 ms instead of 7.4 for 64² to 256² of 64 channels.

    In 8 bits ONNX Runtime's kernel is slower still, and rounds down.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        ends = wiring.ends(node) if node.op_type == "Resize" else None
        if ends is None or attribute(node, "mode", b"nearest") != b"linear" or len(node.input) != 3:
            continue
        start, end = ends
        scales = wiring.constants.get(node.input[2])
        before = wiring.image_shape(_before(start, wiring))
        behind = wiring.image_shape(end.input[0])
        if scales is None or scales.shape != (4,) or not all((*before, *behind)):
            continue
        name = f"{node.name}_last"
        add_constants(
            model,
            {
                f"{name}_scales": scales[[0, 2, 3, 1]],
                f"{name}_before": np.array([0, *before[1:], before[0]], np.int64),
                f"{name}_behind": np.array([0, *behind[1:], behind[0]], np.int64),
            },
        )
        resize = copy_of(node, f"{name}_x", f"{name}_y")
        resize.input[2] = f"{name}_scales"
        new = [
            helper.make_node("Transpose", [start.input[0]], [f"{name}_0"], f"{name}_transpose", perm=[0, 2, 3, 1]),
            # The reshapes change nothing: ONNX Runtime would draw one transposition through to the other and drop both.
            helper.make_node("Reshape", [f"{name}_0", f"{name}_before"], [f"{name}_1"], f"{name}_hold"),
            copy_of(start, f"{name}_1", f"{name}_x"),
            resize,
            copy_of(end, f"{name}_y", f"{name}_q"),
            helper.make_node("Reshape", [f"{name}_q", f"{name}_behind"], [f"{name}_2"], f"{name}_keep"),
            helper.make_node("Transpose", [f"{name}_2"], [end.output[0]], f"{name}_back", perm=[0, 3, 1, 2]),
        ]
        model.graph.node.remove(end)
        replace_node(model, node, new)


def _elu_in_8_bits(model: ModelProto) -> None:
    """Compute max(x, 0) + (exp(min(x, 0)) - 1), in which the networks write Elu, on 8-bit values.

    Minimum and maximum are taken of the 8-bit values, at the zero point, so that max(x, 0) is not rounded once more.
    The exponential is quantised from 0 to 1, and taken for 1 less when it is read.
    """
    wiring = Wiring.of(model)
    for node in list(model.graph.node):
        halves = elu_halves(node, wiring, ELU_HALVES)
        start = wiring.producers.get(halves[0][-1].input[0]) if halves is not None else None
        if start is None or start.op_type != "DequantizeLinear":
            continue
        quantized, scale, zero = start.input
        name = f"{node.name}_split"
        step, low, high = f"{name}_scale", f"{name}_low", f"{name}_high"
        add_constants(model, {step: np.float32(ELU_SCALE), low: np.uint8(0), high: np.uint8(255)})
        new = [
            helper.make_node("Min", [quantized, zero], [f"{name}_0"], f"{name}_min"),
            helper.make_node("DequantizeLinear", [f"{name}_0", scale, zero], [f"{name}_1"], f"{name}_min_dq"),
            helper.make_node("Exp", [f"{name}_1"], [f"{name}_2"], f"{name}_exp"),
            helper.make_node("QuantizeLinear", [f"{name}_2", step, low], [f"{name}_3"], f"{name}_exp_q"),
            helper.make_node("DequantizeLinear", [f"{name}_3", step, high], [f"{name}_4"], f"{name}_exp_dq"),
            helper.make_node("Max", [quantized, zero], [f"{name}_5"], f"{name}_max"),
            helper.make_node("DequantizeLinear", [f"{name}_5", scale, zero], [f"{name}_6"], f"{name}_max_dq"),
            helper.make_node("Add", [f"{name}_6", f"{name}_4"], [node.output[0]], node.name),
        ]
        replace_node(model, node, new)


def _before(dequantize: NodeProto, wiring: Wiring) -> str:
    """Return the float tensor whose 8 bits ``dequantize`` reads."""
    quantize = wiring.producers.get(dequantize.input[0])
    return quantize.input[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else ""
