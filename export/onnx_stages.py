"""Trace each stage of the model to ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from showface.runtime.stages import TENSORS, VARIANTS, Stage
from showface.training.config import NetworkConfig
from showface.training.networks.mdrnets import MDRNets

OPSET = 18
LEAKY_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")  # local paths, and bulk
MIN_HALF_SIZE = 64  # elements; a smaller weight is not worth a cast


class ParserStage(nn.Module):
    """The parser up to its labels; training needs its logits, the chain does not."""

    def __init__(self, parser: nn.Module) -> None:
        super().__init__()
        self.parser = parser

    def forward(self, coarse_image: Tensor) -> Tensor:
        """Return ``semantic_map`` [B, H, W] int32."""
        return torch.argmax(self.parser(coarse_image), dim=1).to(torch.int32)


def variant_of(config: NetworkConfig) -> str:
    """Return the variant of the stage table that a network config builds."""
    if config.memory.kind == "none":
        return "no-memory"
    if not config.mrem.mining:
        return "no-mrem"
    return "non-disentangled" if config.memory.kind == "shared" else "full"


def stage_modules(model: MDRNets) -> dict[str, nn.Module]:
    """Return the module of each stage; its arguments follow the stage table."""
    modules: dict[str, nn.Module] = {"coarse": model.coarse, "parser": ParserStage(model.parser)}
    modules["memory"] = model.memory.encoder if model.memory.bank is None else model.memory
    if model.mrem is not None:
        modules["mrem"] = model.mrem
    modules["refiner"] = model.refiner
    return modules


@torch.no_grad()
def reference_outputs(
    model: MDRNets, image: Tensor, mask: Tensor, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return every tensor of the chain as PyTorch computes it, and the parser's margin.

    Args:
        model: in evaluation mode.
        image: [B, 3, H, W] in [-1, 1].
        mask: [B, 1, H, W], 1 in the hole.
        given: tensors that replace the chain's own as soon as these are computed.
    """
    tensors: dict[str, Tensor] = {"image": image, "mask": mask}
    modules = stage_modules(model)
    for stage in VARIANTS[variant_of(model.config)]:
        result = modules[stage.name](*(tensors[name] for name in stage.inputs))
        outputs = result if isinstance(result, tuple) else (result,)
        named = zip(stage.outputs, outputs, strict=True)
        tensors.update({name: (given or {}).get(name, value) for name, value in named})
    best = model.parser(tensors["coarse_image"]).topk(2, dim=1).values
    tensors["semantic_margin"] = best[:, 0] - best[:, 1]
    return tensors


def _example_inputs(stage: Stage, config: NetworkConfig) -> dict[str, Tensor]:
    """Return zeros of the stage's input shapes, batch 2 (a batch of 1 would be traced as a constant)."""
    dtypes = {"float32": torch.float32, "int32": torch.int32}
    shape = {n: TENSORS[n].resolve(2, config.image_size, config.memory.channels) for n in stage.inputs}
    return {n: torch.zeros(shape[n], dtype=dtypes[TENSORS[n].dtype]) for n in stage.inputs}


def export_stage(module: nn.Module, stage: Stage, config: NetworkConfig, half_weights: bool) -> onnx.ModelProto:
    """Trace one stage with a dynamic batch.

    Args:
        module: of the stage, in evaluation mode.
        stage: its entry of the stage table.
        config: of the model.
        half_weights: store weights as float16 with a cast, where that loses nothing.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    inputs = _example_inputs(stage, config)
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
    if half_weights:
        _store_half(proto)
    onnx.checker.check_model(proto)
    return proto


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
        if values.size < MIN_HALF_SIZE or not np.array_equal(half.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def numpy_reference(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert the tensors of :func:`reference_outputs` for the runtime's parity check."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
