"""From ranges and chosen nodes to a graph with Q and DQ, through ONNX Runtime's quantiser."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from showface.export.graph import constant_values, producers
from showface.runtime.errors import ShowfaceError

from .placement import RULES, placed_nodes
from .rewrites.cpu_forms import use_fast_forms
from .settings import Target

Range = tuple[float, float]  # lowest and highest value that is not clipped


def quantize(
    model: ModelProto, stage: str, target: Target, groups: Collection[str], ranges: Mapping[str, Range]
) -> ModelProto:
    """Return ``model`` with the layer groups ``groups`` in 8 bits.

    Args:
        model: float graph of the stage, from :func:`showface.calibration.rewrites.float_graph.float_graph`.
        stage: its name.
        target: who runs it.
        groups: names from :func:`showface.calibration.placement.quantizable`; at least one.
        ranges: of all tensors that :func:`showface.calibration.placement.placed_tensors` names.

    Raises:
        ShowfaceError: a weight of a chosen layer was not quantised.
    """
    rules = RULES[target]
    nodes = placed_nodes(model, stage, target, groups)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {name: tuple(np.float32(value) for value in pair) for name, pair in ranges.items()}
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=rules.reduced_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if rules.symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={
            "ActivationSymmetric": rules.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": rules.quantized_outputs,
            "OpTypesToExcludeOutputQuantization": [] if rules.quantized_outputs else ["Conv", "MatMul", "Add"],
        },
    )
    logging.getLogger(__name__).debug("stage %s: %d nodes get Q and DQ", stage, len(nodes))
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: ModelProto = quantizer.model.model
    _read_float_where_it_is(result, {node.name for node in nodes}, rules.quantized_outputs)
    _assert_quantized(result, stage, [node.name for node in nodes if node.op_type == "Conv"])
    if target is Target.CPU:
        use_fast_forms(result, constant_values(model))
    return result


def _read_float_where_it_is(model: ModelProto, placed: Collection[str], quantized_outputs: bool) -> None:
    """Let float nodes read the tensor before its Q and DQ; the quantiser leads every reader behind them.

    A normalisation or a sum in float would lose precision for nothing. Only what comes out of a node whose output is
    quantised exists in 8 bits alone.
    """
    source = producers(model)
    for node in model.graph.node:
        if node.name in placed or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for k, name in enumerate(node.input):
            dequantize = source.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear" or dequantize.input[0] not in source:
                continue
            before = source[dequantize.input[0]].input[0]
            if not (quantized_outputs and before in source and source[before].name in placed):
                node.input[k] = before


def _assert_quantized(model: ModelProto, stage: str, convolutions: Collection[str]) -> None:
    """Refuse a graph in which a chosen convolution still reads float weights."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.name not in convolutions:
            continue
        source = sources.get(node.input[1])
        if source is None or constants[source.input[0]].data_type != TensorProto.INT8:
            raise ShowfaceError(f"stage {stage}: the weight of {node.name} is not stored in 8 bits; this is a fault")
