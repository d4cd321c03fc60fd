"""Trace each stage of the model to ONNX."""

from __future__ import annotations

import base64
import json
import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from torch import nn

from showface.runtime.stages import Stage
from showface.training.config import NetworkConfig
from showface.training.networks.stages import example_inputs

OPSET = 18
LEAKY_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")  # local paths, and bulk
HALF_ROUNDING = 2.0**-21  # relative; folding a factor of one rounds the last bit of float32
OTHER_WEIGHTS = "showface.other_weights"  # metadata of a graph: weights that are none of its initializers, safetensors
HALF_SUFFIX = ".float16"  # of the name of a weight that is stored in half precision
MIN_HALF_SIZE = 64  # elements; a smaller weight is not worth a cast


def export_stage(module: nn.Module, stage: Stage, config: NetworkConfig, half_weights: bool) -> onnx.ModelProto:
    """Trace one stage, whose module is in evaluation mode, with a dynamic batch.

    With ``half_weights`` its weights are stored as float16 with a cast, where that loses nothing.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    inputs = example_inputs(stage, config, 2)  # a batch of 1 would be traced as a constant
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _strip_metadata(proto)
    _keep_other_weights(proto, module)
    if half_weights:
        _store_half(proto)
    onnx.checker.check_model(proto)
    return proto


def _keep_other_weights(proto: onnx.ModelProto, module: nn.Module) -> None:
    """Keep the weights that the exporter has merged, reshaped or folded, as metadata: training goes on from them.

    They are few and small: what belongs to normalisations, and biases of zeros.
    """
    kept = {initializer.name for initializer in proto.graph.initializer}
    others = {name: tensor for name, tensor in module.state_dict().items() if name not in kept}
    text = {name: base64.b64encode(save({"": tensor.contiguous()})).decode() for name, tensor in others.items()}
    onnx.helper.set_model_props(proto, {OTHER_WEIGHTS: json.dumps(text)})


def _strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove what leaks local paths; the node → module map (name scopes) stays."""
    for item in (*proto.graph.node, *proto.graph.value_info, *proto.graph.initializer, proto.graph):
        kept = [p for p in item.metadata_props if p.key not in LEAKY_METADATA]
        del item.metadata_props[:]
        item.metadata_props.extend(kept)


def _store_half(proto: onnx.ModelProto) -> None:
    """Store float32 initialisers that float16 represents exactly as float16, followed by a cast."""
    casts = []
    for initializer in proto.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < MIN_HALF_SIZE or not np.allclose(
            half.astype(np.float32), values, rtol=HALF_ROUNDING, atol=0.0
        ):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}{HALF_SUFFIX}"))
        casts.append(helper.make_node("Cast", [f"{name}{HALF_SUFFIX}"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
