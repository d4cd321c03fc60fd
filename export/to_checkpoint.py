"""Bundle to checkpoint: the weights of a float bundle, to learn on from where its training state is lost.

The exporter folds a normalisation into the convolution before it. Such a pair is taken apart again so that it
computes the same: the convolution keeps the product, and the normalisation has the statistics of what it now sees.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from showface.runtime.bundle import Bundle, as_exported
from showface.runtime.errors import UsageError
from showface.training.checkpoint import save_checkpoint
from showface.training.config import NetworkConfig
from showface.training.config_reader import config_from_dict
from showface.training.networks.folding import unfold
from showface.training.networks.mdrnets import MDRNets

from .graph import module_of
from .onnx_stages import HALF_SUFFIX, OTHER_WEIGHTS


@dataclass(frozen=True, slots=True)
class StageWeights:
    """The weights of one graph, by the name that they had in torch.

    Attributes:
        tensors: float32.
        normalisations: modules that are nodes of the graph; the others were folded away.
    """

    tensors: Mapping[str, Tensor]
    normalisations: frozenset[str]


def checkpoint_from_bundle(bundle: Bundle, path: Path, stages: Iterable[str] | None = None) -> None:
    """Write the weights of ``bundle`` as a checkpoint that training can start from.

    Args:
        bundle: of float32 graphs, with the network config in its manifest.
        path: safetensors file to write.
        stages: networks to keep; None keeps all.

    Raises:
        UsageError: the bundle has no network config or is no float32 one, a weight is not in its graphs, or there is
            no such stage.
        ShowfaceError: the file cannot be written.
    """
    manifest = bundle.manifest
    if manifest.network is None:
        raise UsageError(f"{bundle.folder}: its manifest holds no network config; an older version exported it")
    other = sorted(name for name, precision in manifest.precision.items() if precision != "float32")
    if other:
        raise UsageError(
            f"{bundle.folder}: stage {other[0]} is {manifest.precision[other[0]]}; a checkpoint is made from the "
            "float32 bundle that it came from"
        )
    as_exported(bundle, "a checkpoint is made from")
    config = config_from_dict(NetworkConfig, manifest.network, f"{bundle.folder}: manifest.json: network")
    with torch.random.fork_rng(devices=[]):
        model = MDRNets(config).eval()
    wanted = tuple(name for name, _ in model.named_children())
    unknown = sorted(set(stages or ()) - set(wanted))
    if unknown:
        raise UsageError(f"{bundle.folder}: has no network {unknown[0]!r}; choose from {', '.join(wanted)}")
    for name in wanted:
        file = f"{name}.onnx"
        _load(getattr(model, name), name, _weights(bundle.read(file), bundle.folder / file), bundle.folder / file)
    save_checkpoint(path, model, config, tuple(stages or wanted), {"bundle": manifest.checkpoint_sha256})


def _weights(data: bytes, path: Path) -> StageWeights:
    """Read the weights of a graph.

    Raises:
        UsageError: what its metadata says of weights cannot be read.
    """
    proto = onnx.load_model_from_string(data)
    arrays = {item.name.removesuffix(HALF_SUFFIX): numpy_helper.to_array(item) for item in proto.graph.initializer}
    tensors = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    text = next((item.value for item in proto.metadata_props if item.key == OTHER_WEIGHTS), "{}")
    try:
        tensors |= {name: load(base64.b64decode(value))[""] for name, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, KeyError, SafetensorError) as error:
        raise UsageError(f"{path}: the weights in its metadata cannot be read: {error}") from error
    norms = {module_of(node) for node in proto.graph.node if node.op_type == "BatchNormalization"}
    return StageWeights(tensors, frozenset(norms))


@torch.no_grad()
def _load(network: nn.Module, stage: str, weights: StageWeights, path: Path) -> None:
    """Copy the weights of one stage into its network."""
    prefix = f"{stage}." if any(name.startswith(f"{stage}.") for name in weights.tensors) else ""
    state = network.state_dict()
    for key, value in state.items():
        found = weights.tensors.get(prefix + key)
        if found is None or found.shape != value.shape:
            raise UsageError(f"{path}: holds no weight {key!r} of the shape {tuple(value.shape)}")
        state[key] = found.to(value.dtype)
    network.load_state_dict(state)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and prefix + name not in weights.normalisations:
            unfold(module)
