"""Bundle to checkpoint: the weights of a float bundle, to learn on from where its training state is lost.

The exporter folds a normalisation into the convolution before it. Such a pair is taken apart again so that it
computes the same, with the mean and the deviation that the faces at hand show: a normalisation that learns on
then starts from what it sees. Other weights are those of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from showface.runtime.bundle import Bundle
from showface.runtime.errors import UsageError
from showface.training.checkpoint import save_checkpoint
from showface.training.config import NetworkConfig
from showface.training.config_reader import config_from_dict
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import reference_outputs

HALF_SUFFIX = ".float16"  # of weights that are stored in half precision
FOLDED_SUFFIX = "_bias"  # of the bias that folding gives a convolution which has none
LEAST_VARIANCE = 1e-4
TRAINING_ONLY = ("usage",)  # buffers that no graph holds
Faces = tuple[NDArray[np.float32], NDArray[np.float32]]  # image [N, 3, H, W] and mask [N, 1, H, W]


def checkpoint_from_bundle(bundle: Bundle, path: Path, faces: Faces, stages: Iterable[str] | None = None) -> None:
    """Write the weights of ``bundle`` as a checkpoint that training can start from.

    Args:
        bundle: of float graphs, with the network config in its manifest.
        path: safetensors file to write.
        faces: real inputs, which the statistics of folded normalisations are measured on.
        stages: networks to keep; None keeps all.

    Raises:
        UsageError: the bundle has no network config or is no float one, a weight is not in its graphs, or there is
            no such stage.
    """
    manifest = bundle.manifest
    if manifest.network is None:
        raise UsageError("the bundle's manifest holds no network config: it was exported by an older version")
    quantised = sorted(name for name, precision in manifest.precision.items() if not precision.startswith("float"))
    if quantised:
        raise UsageError(f"stage {quantised[0]} is {manifest.precision[quantised[0]]}; start from a float bundle")
    config = config_from_dict(NetworkConfig, dict(manifest.network), "manifest.json: network")
    with torch.random.fork_rng(devices=[]):
        model = MDRNets(config).eval()
    wanted = tuple(name for name, _ in model.named_children())
    unknown = sorted(set(stages or ()) - set(wanted))
    if unknown:
        raise UsageError(f"the bundle has no network {unknown[0]!r}; choose from {', '.join(wanted)}")
    folded = [name for stage in wanted for name in _load(model, stage, _weights(bundle.model(stage)))]
    _unfold(model, folded, faces)
    save_checkpoint(path, model, config, tuple(stages or wanted), {"bundle": manifest.checkpoint_sha256})


def _weights(data: bytes) -> dict[str, Tensor]:
    """Return the initialisers of a graph in float32, by the name that they had in torch."""
    graph = onnx.load_model_from_string(data).graph
    arrays = {item.name.removesuffix(HALF_SUFFIX): numpy_helper.to_array(item) for item in graph.initializer}
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def _load(model: MDRNets, stage: str, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy the weights of one stage into ``model``; return the normalisations that were folded away."""
    network = getattr(model, stage)
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    prefix = f"{stage}." if any(name.startswith(f"{stage}.") for name in weights) else ""
    folded = {name for name in norms if f"{prefix}{_convolution(name)}.weight{FOLDED_SUFFIX}" in weights}
    state = network.state_dict()
    for key, value in state.items():
        owner = key.rpartition(".")[0]
        if owner in folded or not value.dtype.is_floating_point:
            continue
        found = weights.get(prefix + key)
        if found is None and key.rpartition(".")[2] in TRAINING_ONLY:
            continue
        if found is None or found.shape != value.shape:
            raise UsageError(f"{stage}.onnx: holds no weight {key!r} of the shape {tuple(value.shape)}")
        state[key] = found
    for name in folded:
        bias = weights[f"{prefix}{_convolution(name)}.weight{FOLDED_SUFFIX}"]
        plain = {"weight": torch.ones_like(bias), "bias": bias, "running_mean": torch.zeros_like(bias)}
        plain["running_var"] = torch.ones_like(bias) - norms[name].eps
        state |= {f"{name}.{key}": value for key, value in plain.items()}
    network.load_state_dict(state)
    return [f"{stage}.{name}" for name in folded]


def _convolution(norm: str) -> str:
    """Return the name of the convolution before a normalisation of a sequence of layers."""
    head, _, number = norm.rpartition(".")
    return f"{head}.{int(number) - 1}" if number.isdigit() else norm


@torch.no_grad()
def _unfold(model: MDRNets, folded: list[str], faces: Faces) -> None:
    """Give folded normalisations the statistics of ``faces``; the model computes what it did."""
    norms = {name: model.get_submodule(name) for name in folded}
    image, mask = (torch.from_numpy(array) for array in faces)
    with _inputs_watched(norms) as seen:
        reference_outputs(model, image, mask)
    for name, norm in norms.items():
        assert isinstance(norm, nn.BatchNorm2d)
        values = seen[name].double()
        mean, variance = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3)).clamp(min=LEAST_VARIANCE)
        norm.bias += mean.float()
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]


@contextmanager
def _inputs_watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_pre_hook(lambda _, inputs: seen.__setitem__(name, inputs[0]))

    hooks = [watch(name, module) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
