"""The checkpoint file: weights and all that is needed to rebuild the model, in safetensors.

Reading one executes nothing. The header's metadata entry ``showface`` holds, as JSON: schema
version, network config, category names, the stages it holds, and figures of its training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES
from showface.runtime.untrusted.read import parse_json, shown

from .config import NetworkConfig, ReconstructionConfig
from .config_reader import config_from_dict
from .loss_networks.reconstruction import ReconstructionNetwork
from .networks.coarse import CoarseNetwork
from .networks.mdrnets import MDRNets
from .occluder.config import OccluderConfig
from .occluder.network import Occluder
from .run_files import write_whole
from .weight_files import read_safetensors

Network = TypeVar("Network", bound=nn.Module)
SettingsKind = TypeVar("SettingsKind")

SCHEMA_VERSION = 1
METADATA_KEY = "showface"
KINDS = {"schema_version": int, "network": dict, "categories": list, "stages": list, "training": dict, "sha256": str}
WIDEST = 10**6  # of any number in a network config


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory."""

    config: NetworkConfig
    weights: dict[str, Tensor]
    stages: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def weights_sha256(self) -> str:
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


def _networks_of(config: NetworkConfig) -> tuple[str, ...]:
    """Return the networks of an assembled model."""
    return ("coarse", "parser", "memory", *(() if config.memory.kind == "none" else ("mrem",)), "refiner")


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
            stored = value.half() if value.dtype.is_floating_point else value
            weights[key] = stored.cpu().contiguous()
            if value.dtype.is_floating_point and not torch.isfinite(weights[key]).all():
                raise UsageError(f"{path}: {key!r} does not fit float16")
    header = {
        "schema_version": SCHEMA_VERSION,
        "network": asdict(network),
        "categories": CATEGORIES,
        "stages": stages,
        "training": training,
    }
    header["sha256"] = _header_digest(header, weights)
    write_whole(path, lambda file: save_file(weights, file, {METADATA_KEY: json.dumps(header)}))


def _header_digest(header: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the digest of all that a checkpoint holds but this digest itself."""
    text = json.dumps({key: value for key, value in header.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256((text + _digest(weights)).encode()).hexdigest()


def _read_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header = parse_json(metadata[METADATA_KEY])
        version = header["schema_version"]
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: safetensors without a showface header; not a showface checkpoint") from error
    if type(version) is int and version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: checkpoint schema {shown(version)} is newer than {SCHEMA_VERSION}; "
            "upgrade with: pip install -U showface"
        )
    for key, kind in KINDS.items():
        if key not in header and key != "sha256":  # which older versions did not write
            raise UsageError(f"{path}: the showface header lacks {key!r}; the file is damaged")
        if type(header.get(key, kind())) is not kind:
            raise UsageError(f"{path}: {key!r} of the showface header is {shown(header[key])}; the file is damaged")
    unknown = sorted(set(header) - set(KINDS))
    if unknown:
        raise UsageError(f"{path}: the showface header has {shown(unknown[0])}, which is unknown; the file is damaged")
    if tuple(header["categories"]) != CATEGORIES:
        raise UsageError(f"{path}: its category scheme differs from this version's {CATEGORIES}")
    if not all(isinstance(stage, str) for stage in header["stages"]):
        raise UsageError(f"{path}: 'stages' of the showface header is {shown(header['stages'])}; the file is damaged")
    return dict(header)


def _absurd(value: Any) -> Any:
    """Return a number in a config, or a list, that no network has; None where there is none."""
    if isinstance(value, dict | list):
        if len(value) > 64:
            return value
        found = (_absurd(entry) for entry in (value.values() if isinstance(value, dict) else value))
        return next((number for number in found if number is not None), None)
    least = 1 if type(value) is int else 0
    return (
        value if isinstance(value, int | float) and not least <= value <= WIDEST and type(value) is not bool else None
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        UsageError: the file is missing, is no checkpoint of this or an older schema, has another category scheme, or
            was changed since it was written.
    """
    weights, metadata = read_safetensors(path)
    header = _read_header(path, metadata)
    if header.get("sha256", "") != "" and header["sha256"] != _header_digest(header, weights):
        raise UsageError(f"{path}: is damaged: its digest is not that of its weights; copy it again")
    absurd = _absurd(header["network"])
    if absurd is not None:
        raise UsageError(f"{path}: its network config holds {shown(absurd)}, which no network has")
    config = config_from_dict(NetworkConfig, header["network"], f"{path}: network")
    return Checkpoint(config, weights, tuple(header["stages"]), dict(header["training"]))


def load_weights(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Copy the stages of ``checkpoint`` into ``model``.

    A coarse network that was trained without a layout network leaves that of ``model`` as it is.

    Raises:
        UsageError: a key is missing, unknown or has another shape; the message names it.
    """
    _check_weights(model, checkpoint, path)
    model.load_state_dict(checkpoint.weights, strict=False)


def _check_weights(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Compare names and shapes of the weights with a model, which may be one on the meta device."""
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


def _rebuild(make: Callable[[], Network], stages: str | None, checkpoint: Checkpoint, path: Path) -> Network:
    """Return the network that a checkpoint's config describes, with its weights, in evaluation mode.

    It is laid out first on the meta device, which takes no memory: a config may ask for any. ``stages`` is the name of
    the one network that it is; None for the assembled model.
    """

    def named(network: nn.Module) -> nn.Module:
        return network if stages is None else nn.ModuleDict({stages: network})

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                outline = make()
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise UsageError(f"{path}: its config describes no network: {str(error).partition(chr(10))[0]}") from error
        _check_weights(named(outline), checkpoint, path)
        network = make()
    load_weights(named(network), checkpoint, path)
    return network.eval()


def _one_network(
    path: Path, stage: str, kind: type[SettingsKind], make: Callable[[SettingsKind], Network]
) -> tuple[Network, Checkpoint]:
    """Rebuild the one network that a run of ``stage`` left, by its config of ``kind``."""
    checkpoint = read_checkpoint(path)
    if checkpoint.stages != (stage,):
        raise UsageError(f"{path}: holds {', '.join(checkpoint.stages)}; wanted: showface train {stage}")
    try:
        settings = checkpoint.training[stage]["config"][stage]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: lacks the config of {stage}; the file is damaged") from error
    if not isinstance(settings, dict) or _absurd(settings) is not None:
        raise UsageError(f"{path}: the config of {stage} is {shown(settings)}, which no network has")
    config = config_from_dict(kind, settings, f"{path}: {stage}")
    return _rebuild(lambda: make(config), stage, checkpoint, path).requires_grad_(False), checkpoint


def model_from_checkpoint(path: Path) -> tuple[MDRNets, Checkpoint]:
    """Rebuild the assembled model, in float32 and evaluation mode.

    Raises:
        UsageError: as :func:`read_checkpoint` and :func:`load_weights`, or the checkpoint lacks a stage.
    """
    return _with_stages(path, None)


def coarse_from_checkpoint(path: Path) -> CoarseNetwork:
    """Rebuild the coarse network alone, of any checkpoint that holds it; otherwise as :func:`model_from_checkpoint`."""
    return _with_stages(path, "coarse")[0].coarse


def _with_stages(path: Path, needed: str | None) -> tuple[MDRNets, Checkpoint]:
    """Return the model with the weights that are there; it must have those of ``needed``, or all."""
    checkpoint = read_checkpoint(path)
    wanted = _networks_of(checkpoint.config) if needed is None else (needed,)
    absent = [stage for stage in wanted if stage not in checkpoint.stages]
    if absent:
        raise UsageError(
            f"{path}: holds {', '.join(checkpoint.stages)} but not {', '.join(absent)}; "
            "assemble it with: showface train mdrnet"
        )
    return _rebuild(lambda: MDRNets(checkpoint.config), None, checkpoint, path), checkpoint


def occluder_from_checkpoint(path: Path) -> tuple[Occluder, Checkpoint]:
    """Rebuild the network that a run of the stage ``occluder`` left, frozen.

    Raises:
        UsageError: as :func:`read_checkpoint` and :func:`load_weights`, or it is another stage's.
    """
    return _one_network(path, "occluder", OccluderConfig, Occluder)


def reconstruction_from_checkpoint(path: Path) -> tuple[ReconstructionNetwork, Checkpoint]:
    """Rebuild the network that a run of the stage ``reconstruction`` left; see :func:`occluder_from_checkpoint`."""
    return _one_network(path, "reconstruction", ReconstructionConfig, ReconstructionNetwork)
