"""The networks whose features distances between pictures are measured in, and which file gives which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import open_file
from showface.training.loss_networks.vgg import vgg_from_file
from showface.training.weight_files import read_safetensors

from ..metrics import Rgb
from .inception import FILE_NAME, inception_from_file

FrechetLabel = Literal["FID", "FD-VGG16"]
Layers = Sequence[Tensor]  # activations of one network, [B, c, h, w] each, from the first to the last

CAFFE_INPUT = "BGR, 0-255"  # how the entry `input` of the shared VGG-16's header begins


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """What distances between pictures are measured in.

    Attributes:
        label: ``FID`` for the standard Inception network alone; Fréchet distances of different labels do
            not compare.
        layers: maps pictures [B, 3, H, W] in [-1, 1] to activations: the ends of VGG-16's five blocks, or
            Inception's last one.
        device: where ``layers`` computes.
    """

    label: FrechetLabel
    layers: Callable[[Tensor], Layers]
    device: torch.device

    @property
    def is_perceptual(self) -> bool:
        """Whether :func:`.perceptual.relative_distance` is defined on the layers: on VGG-16's alone."""
        return self.label == "FD-VGG16"

    def activations(self, pictures: Sequence[Rgb]) -> Layers:
        """Return the layers of pictures [H, W, 3] of one size."""
        with torch.inference_mode():
            return self.layers(as_tensor(pictures, self.device))


def features(layers: Layers) -> NDArray[np.float64]:
    """Return the rows [B, c] of the Fréchet distance: the spatial means of the last layer [B, c, h, w]."""
    return layers[-1].double().mean(dim=(2, 3)).cpu().numpy()


def as_tensor(pictures: Sequence[Rgb], device: torch.device) -> Tensor:
    """Return pictures [H, W, 3] of one size as [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def feature_network(path: Path, device: torch.device | None = None) -> FeatureNetwork:
    """Load the feature network of a weight file; the content decides which it is.

    Args:
        path: the shared VGG-16 as safetensors gives ``FD-VGG16``, pytorch-fid's Inception file
            gives ``FID``.
        device: device to compute on; by default the CPU.

    Raises:
        UsageError: the file is neither of the two, or broken.
    """
    device = device or torch.device("cpu")
    if _is_safetensors(path):
        _check_vgg16(path)
        vgg = vgg_from_file(path, "vgg16-caffe").to(device)
        return FeatureNetwork("FD-VGG16", lambda pictures: vgg.blocks(pictures, 5), device)
    inception = inception_from_file(path).to(device)
    return FeatureNetwork("FID", lambda pictures: [inception(pictures)[:, :, None, None]], device)


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: 8 bytes for the header's length, then JSON."""
    with open_file(path, UsageError) as file:
        return file.read(9)[8:] == b"{"


def _check_vgg16(path: Path) -> None:
    """Refuse other networks, and VGG-16 weights that want another input than the label stands for."""
    expected = f"for FD-VGG16 give Caffe's VGG-16 as safetensors, for FID {FILE_NAME}"
    keys, metadata = read_safetensors(path)
    if "features.28.weight" not in keys or "features.30.weight" in keys:
        raise UsageError(f"{path}: holds no VGG-16; {expected}", "features")
    if not metadata.get("input", "").startswith(CAFFE_INPUT):
        raise UsageError(
            f"{path}: its header does not say 'input': '{CAFFE_INPUT} …', so the weights may want another "
            f"input; {expected}",
            "features",
        )
