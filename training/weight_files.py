"""Weight files that others published: read without running their code, and checked before they are used."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import parse_json, read_file

MAX_WEIGHTS = 2**33  # bytes
_MAX_HEADER = 2**24  # bytes of a safetensors file's JSON


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and the texts of its header.

    Raises:
        UsageError: it cannot be read, or its header does not describe what follows it.
    """
    data = read_file(path, MAX_WEIGHTS, UsageError)
    try:
        tensors = load(data)  # compares shapes and offsets with the file before it makes a tensor
        size = int.from_bytes(data[:8], "little")
        if size > _MAX_HEADER:
            raise ValueError(f"its header takes {size} bytes")
        metadata = parse_json(data[8 : 8 + size]).get("__metadata__", {})
    except (ValueError, SafetensorError, RuntimeError) as error:
        remedy = "; to name a bundle, give its folder" if path.suffix == ".onnx" else ""
        raise UsageError(f"{path}: cannot be read as safetensors: {error}{remedy}") from error
    return tensors, metadata


def unpickle_weights(path: Path, digest: str, source: str) -> dict[str, Any]:
    """Unpickle a state dict, as plain weights and only if the file is the published one.

    The sha256 of that starts with ``digest``; ``source`` says in the message what it is.

    Raises:
        UsageError: the file cannot be read, has another digest, or holds anything but a state dict.
    """
    data = read_file(path, MAX_WEIGHTS, UsageError)
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise UsageError(
            f"{path}: its sha256 starts with {found[: len(digest)]}, that of {source} with {digest}; "
            "another file or a damaged copy: fetch it again"
        )
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path}: cannot be read as a weight file: {error}") from error
    if not isinstance(weights, dict):
        raise UsageError(f"{path}: holds a {type(weights).__name__}; expected a state dict")
    return weights


def matching_weights(
    weights: Mapping[str, Any], wanted: Mapping[str, Tensor], path: Path, source: str
) -> dict[str, Tensor]:
    """Return the entries of ``weights`` that ``wanted`` names, in float32; others are left out.

    Raises:
        UsageError: a key is missing or has another shape; the message names it and ``source``.
    """
    for key, value in wanted.items():
        if not isinstance(weights.get(key), Tensor):
            raise UsageError(f"{path}: missing key {key}; expected {source}")
        if weights[key].shape != value.shape:
            shapes = f"{list(weights[key].shape)} instead of {list(value.shape)}"
            raise UsageError(f"{path}: {key} has the shape {shapes}; expected {source}")
    return {key: weights[key].float() for key in wanted}


def load_mobilenet(features: nn.ModuleList, path: Path) -> None:
    """Load as many blocks of torchvision's ImageNet MobileNetV2 (key names ``features.N.*``) as ``features`` has.

    Raises:
        UsageError: the file is no safetensors, or lacks a key of the right shape.
    """
    wanted = {f"features.{key}": value for key, value in features.state_dict().items()}
    weights = matching_weights(read_safetensors(path)[0], wanted, path, "torchvision's MobileNetV2")
    features.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
