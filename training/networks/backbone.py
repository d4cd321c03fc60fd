"""Pre-trained weights for the parser's context path."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from showface.runtime.errors import UsageError

from .parser import ContextPath


def load_backbone(context: ContextPath, path: Path) -> None:
    """Load torchvision's ImageNet MobileNetV2 (safetensors, key names ``features.N.*``).

    The last inverted residual, the head and the classifier have no place in the context path.

    Raises:
        UsageError: the file cannot be read or lacks a key.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read as safetensors: {error}") from error
    wanted = context.features.state_dict()
    missing = [key for key in wanted if f"features.{key}" not in weights]
    if missing:
        raise UsageError(f"{path}: missing key features.{missing[0]}; expected torchvision's MobileNetV2")
    context.features.load_state_dict({key: weights[f"features.{key}"].float() for key in wanted})
