"""Float graphs, made ready for quantisation: casts folded, sizes constant, joined inputs split."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from showface.export.cpu_form.constants import fix_scales, fold_casts
from showface.export.cpu_form.convolutions import convolve_rows
from showface.export.cpu_form.partial import ready_partial_convolutions
from showface.export.cpu_form.subpixel import split_joined_inputs
from showface.runtime.errors import UsageError

from ..settings import Target

QUANTIZED_OPS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")


def float_graph(data: bytes, stage: str, target: Target) -> ModelProto:
    """Parse a stage and bring it into the form that is quantised for ``target``.

    Raises:
        UsageError: the graph is quantised already, or a convolution's weight is no constant.
    """
    model = onnx.load_from_string(data)
    if any(node.op_type in QUANTIZED_OPS for node in model.graph.node):
        raise UsageError(f"stage {stage}: is quantised already; calibrate the float bundle that it came from")
    fold_casts(model)
    fix_scales(model)
    ready_partial_convolutions(model)
    if target is Target.CPU:
        split_joined_inputs(model)
        convolve_rows(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] not in constants:
            raise UsageError(f"stage {stage}: the weight of {node.name} is no constant; export the bundle again")
    return model
