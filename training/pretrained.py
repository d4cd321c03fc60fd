"""Pre-trained weights for the encoders of the parser and the occluder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from .networks.parser import ContextPath
from .weight_files import matching_weights, read_safetensors


def load_backbone(context: ContextPath, path: Path) -> None:
    """Load torchvision's ImageNet MobileNetV2 (safetensors, key names ``features.N.*``).

    The last inverted residual, the head and the classifier have no place in the context path.

    Raises:
        UsageError: the file cannot be read or lacks a key of the right shape.
    """
    load_encoder(context.features, path)


def load_encoder(features: nn.ModuleList, path: Path) -> None:
    """Load as many blocks of the same MobileNetV2 as ``features`` has.

    Raises:
        UsageError: as :func:`load_backbone`.
    """
    wanted = {f"features.{key}": value for key, value in features.state_dict().items()}
    weights = matching_weights(read_safetensors(path)[0], wanted, path, "torchvision's MobileNetV2")
    features.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
