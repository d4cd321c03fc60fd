"""Pre-trained weights for the parser's context path."""

from __future__ import annotations

from pathlib import Path

from ..weight_files import matching_weights, read_safetensors
from .parser import ContextPath


def load_backbone(context: ContextPath, path: Path) -> None:
    """Load torchvision's ImageNet MobileNetV2 (safetensors, key names ``features.N.*``).

    The last inverted residual, the head and the classifier have no place in the context path.

    Raises:
        UsageError: the file cannot be read or lacks a key of the right shape.
    """
    wanted = {f"features.{key}": value for key, value in context.features.state_dict().items()}
    weights = matching_weights(read_safetensors(path), wanted, path, "torchvision's MobileNetV2")
    context.features.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
