"""Convolutions in 8 bits of features that were enlarged by nearest neighbour, computed at the small size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from showface.export.cpu_form.edits import Wiring, add_constants, copy_of, drop_unread, replace_node
from showface.export.cpu_form.subpixel import (
    interleaved,
    is_doubling,
    is_plain_convolution,
    phase_kernel,
    phase_pads,
)

from ..placement import RULES
from ..settings import Target

WEIGHT_LIMIT = RULES[Target.CPU].weight_limit
BIAS_LIMIT = 2**30  # of biases in steps of input times weight; they have 32 bits
WEIGHT_SUFFIX = "_quantized"  # that ONNX Runtime's quantiser gives to constants


def convolve_small_in_8_bits(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Do in a Q/DQ graph what :func:`showface.export.cpu_form.subpixel.convolve_small` does in a float one.

    The graph is changed in place; ``weights`` are constants of the float graph, whose sums are quantised anew.
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
                phase = [phase_kernel(constants[0], row, column), *constants[1:]]
                reads += _constants_in_8_bits(model, part, phase, node, wiring)
                pads = phase_pads(row, column)
                convolve = helper.make_node("Conv", [each.output[0] for each in reads], [f"{part}_y"], part, pads=pads)
                new += [*reads, convolve, copy_of(quantize, f"{part}_y", f"{part}_z")]
        shape = (height, width, constants[0].shape[0])
        replace_node(model, quantize, interleaved(model, name, quantize.output[0], shape))
        replace_node(model, node, new)
    drop_unread(model)


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
