"""The checkpoint file: weights and all that is needed to rebuild the model, in safetensors.

Reading one executes nothing. The header's metadata entry ``showface`` holds, as JSON: schema
version, network config, category names, the stages it holds, and figures of its training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from .config import NetworkConfig, ReconstructionConfig
from .config_reader import config_from_dict
from .networks.coarse import CoarseNetwork
from .networks.mdrnets import MDRNets
from .networks.reconstruction import ReconstructionNetwork
from .occluder.config import OccluderConfig
from .occluder.network import Occluder
from .run_files import write_whole

SCHEMA_VERSION = 1
METADATA_KEY = "showface"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory."""

    config: NetworkConfig
    weights: dict[str, Tensor]
    stages: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of names, shapes and values of the weights, whatever file they came from."""
        return _digest(self.weights)

    @property
    def half(self) -> bool:
        """Whether all weights are float16, which the graphs of a bundle then store."""
        return all(not w.is_floating_point() or w.dtype == torch.float16 for w in self.weights.values())


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def network_digest(model: nn.Module, network: str) -> str:
    """Return the digest of the weights of one network of ``model``, whatever checkpoint they came from."""
    return _digest({key: value.half().cpu() for key, value in model.state_dict().items() if belongs(key, (network,))})


def belongs(key: str, networks: Iterable[str]) -> bool:
    """Return whether ``key`` of a state dict lies in one of ``networks``, such as ``coarse`` or ``coarse.layout``."""
    return any(key.startswith(f"{name}.") for name in networks)


def _stages_of(model: MDRNets) -> tuple[str, ...]:
    return tuple(name for name, _ in model.named_children())


def save_checkpoint(
    path: Path, model: nn.Module, network: NetworkConfig, stages: Iterable[str], training: dict[str, Any]
) -> None:
    """Write the networks ``stages`` of ``model``, first under a temporary name.

    Weights are rounded to float16: a checkpoint is what is deployed, and half the size. Training
    resumes from its own state file, which is not rounded.

    Raises:
        UsageError: a weight lies outside the float16 range.
        ShowfaceError: the file cannot be written.
    """
    stages = tuple(stages)
    weights = {}
    for key, value in model.state_dict().items():
        if belongs(key, stages):
            weights[key] = value.half().contiguous() if value.dtype.is_floating_point else value.contiguous()
            if value.dtype.is_floating_point and not torch.isfinite(weights[key]).all():
                raise UsageError(f"{path}: {key!r} does not fit float16")
    header = {
        "schema_version": SCHEMA_VERSION,
        "network": asdict(network),
        "categories": CATEGORIES,
        "stages": stages,
        "training": training,
    }
    write_whole(path, lambda file: save_file(weights, file, {METADATA_KEY: json.dumps(header)}))


def _read_header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {})[METADATA_KEY])
        version = int(header["schema_version"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: safetensors without a showface header; not a showface checkpoint") from error
    missing = [key for key in ("network", "categories", "stages", "training") if key not in header]
    if missing:
        raise UsageError(f"{path}: the showface header lacks {missing[0]!r}; the file is damaged")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: checkpoint schema {version} is newer than {SCHEMA_VERSION}; upgrade with: pip install -U showface"
        )
    if tuple(header["categories"]) != CATEGORIES:
        raise UsageError(f"{path}: category scheme {header['categories']} differs from this version's {CATEGORIES}")
    return dict(header)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        UsageError: the file is missing, is no checkpoint of this or an older schema, or has another
            category scheme.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata())
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read as a safetensors checkpoint: {error}") from error
    config = config_from_dict(NetworkConfig, header["network"], f"{path}: network")
    return Checkpoint(config, weights, tuple(header["stages"]), dict(header["training"]))


def load_weights(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Copy the stages of ``checkpoint`` into ``model``.

    A coarse network that was trained without a layout network leaves that of ``model`` as it is.

    Raises:
        UsageError: a key is missing, unknown or has another shape; the message names it.
    """
    left = ("coarse.layout",) if checkpoint.config.coarse.layout is None else ()
    state = model.state_dict()
    expected = {k: v for k, v in state.items() if belongs(k, checkpoint.stages) and not belongs(k, left)}
    for key in sorted(set(expected) | set(checkpoint.weights)):
        if key not in checkpoint.weights:
            raise UsageError(f"{path}: missing key {key!r}")
        if key not in expected:
            raise UsageError(f"{path}: unexpected key {key!r}")
        have, want = tuple(checkpoint.weights[key].shape), tuple(expected[key].shape)
        if have != want:
            raise UsageError(f"{path}: {key!r} has shape {have}, the network config gives {want}")
    model.load_state_dict(checkpoint.weights, strict=False)


def model_from_checkpoint(path: Path) -> tuple[MDRNets, Checkpoint]:
    """Rebuild the assembled model, in float32 and evaluation mode.

    Raises:
        UsageError: as :func:`read_checkpoint` and :func:`load_weights`, or the checkpoint lacks a stage.
    """
    return _rebuilt(path, None)


def coarse_from_checkpoint(path: Path) -> CoarseNetwork:
    """Rebuild the coarse network alone, of any checkpoint that holds it; otherwise as :func:`model_from_checkpoint`."""
    return _rebuilt(path, "coarse")[0].coarse


def _rebuilt(path: Path, needed: str | None) -> tuple[MDRNets, Checkpoint]:
    """Return the model with the weights that are there; it must have those of ``needed``, or all."""
    checkpoint = read_checkpoint(path)
    with torch.random.fork_rng(devices=[]):
        model = MDRNets(checkpoint.config)
    wanted = _stages_of(model) if needed is None else (needed,)
    absent = [stage for stage in wanted if stage not in checkpoint.stages]
    if absent:
        raise UsageError(
            f"{path}: holds {', '.join(checkpoint.stages)} but not {', '.join(absent)}; "
            "assemble it with: showface train mdrnet"
        )
    load_weights(model, checkpoint, path)
    return model.eval(), checkpoint


def occluder_from_checkpoint(path: Path) -> tuple[Occluder, Checkpoint]:
    """Rebuild the network that a run of the stage ``occluder`` left, frozen.

    Raises:
        UsageError: as :func:`read_checkpoint` and :func:`load_weights`, or it is another stage's.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.stages != ("occluder",):
        raise UsageError(f"{path}: holds {', '.join(checkpoint.stages)}; wanted: showface train occluder")
    settings = checkpoint.training["occluder"]["config"]["occluder"]
    with torch.random.fork_rng(devices=[]):
        network = Occluder(config_from_dict(OccluderConfig, settings, f"{path}: occluder"))
    load_weights(nn.ModuleDict({"occluder": network}), checkpoint, path)
    return network.requires_grad_(False).eval(), checkpoint


def reconstruction_from_checkpoint(path: Path) -> ReconstructionNetwork:
    """Rebuild the reconstruction network that a run of the stage ``reconstruction`` left, frozen.

    Raises:
        UsageError: as :func:`read_checkpoint` and :func:`load_weights`, or it is another stage's.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.stages != ("reconstruction",):
        raise UsageError(f"{path}: holds {', '.join(checkpoint.stages)}; wanted: showface train reconstruction")
    settings = checkpoint.training["reconstruction"]["config"]["reconstruction"]
    with torch.random.fork_rng(devices=[]):
        network = ReconstructionNetwork(config_from_dict(ReconstructionConfig, settings, f"{path}: reconstruction"))
    load_weights(nn.ModuleDict({"reconstruction": network}), checkpoint, path)
    return network.requires_grad_(False).eval()
