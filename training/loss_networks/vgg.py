"""The frozen VGG of the perceptual and style losses (paper eqs 11 and 12) and of the Fréchet distance."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from showface.runtime.errors import UsageError

from ..networks.parser import IMAGENET_MEAN, IMAGENET_STD
from ..weight_files import matching_weights, read_safetensors, unpickle_weights

VggName = Literal["vgg19", "vgg16", "vgg16-caffe"]

WIDTHS = (64, 128, 256, 512, 512)  # of the five blocks (Simonyan & Zisserman 2015)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red; of values 0-255


@dataclass(frozen=True, slots=True)
class VggKind:
    """One VGG: convolutions a block, its input ``(value - mean) / std`` with values in [0, ``peak``], its files."""

    convolutions: tuple[int, ...]
    suffixes: tuple[str, ...]
    source: str
    peak: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    blue_first: bool = False


KINDS = {
    "vgg19": VggKind(
        convolutions=(2, 2, 4, 4, 4),
        suffixes=(".pth", ".safetensors"),
        source="torchvision's VGG-19",
    ),
    "vgg16": VggKind(
        convolutions=(2, 2, 3, 3, 3),
        suffixes=(".pth",),  # as safetensors Caffe's: the same keys and shapes, another input
        source="torchvision's VGG-16",
    ),
    "vgg16-caffe": VggKind(
        convolutions=(2, 2, 3, 3, 3),
        suffixes=(".safetensors",),  # as .pth there is torchvision's: the same keys and shapes, another input
        source="the convolutions of Caffe's VGG-16",
        peak=255.0,
        mean=CAFFE_MEAN,
        std=(1.0, 1.0, 1.0),
        blue_first=True,
    ),
}


class VggFeatures(nn.Module):
    """The convolutions of a VGG, frozen: no gradient reaches them, and they stay in evaluation mode.

    ``features`` is numbered as in torchvision, so that its key names ``features.N.*`` hold.

    Args:
        network: ``vgg19`` or ``vgg16`` (RGB in [0, 1], ImageNet's mean and standard deviation), or
            ``vgg16-caffe`` (BGR in [0, 255] minus a mean).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: VggName) -> None:
        super().__init__()
        kind = KINDS[network]
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (kind.mean, kind.std))
        self.blue_first = kind.blue_first
        # The step from [-1, 1] to the network's input as one product and one sum.
        self.register_buffer("scale", (kind.peak / 2 / std).float(), persistent=False)
        self.register_buffer("shift", ((kind.peak / 2 - mean) / std).float(), persistent=False)
        layers: list[nn.Module] = []
        ends: list[int] = []
        channels = 3
        for width, convolutions in zip(WIDTHS, kind.convolutions, strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            ends.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.ends = tuple(ends)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VggFeatures:
        """Stay in evaluation mode, whatever ``mode`` the network around it is put into."""
        super().train(False)
        return self

    def network_input(self, image: Tensor) -> Tensor:
        """Map ``image`` [B, 3, H, W], RGB in [-1, 1], to the values that the network was trained on."""
        return (image.flip(1) if self.blue_first else image) * self.scale + self.shift

    def blocks(self, image: Tensor, count: int) -> list[Tensor]:
        """Return the last activation of each of the first ``count`` blocks."""
        x, outputs = self.network_input(image), []
        for i, layer in enumerate(list(self.features)[: self.ends[count - 1]]):
            x = layer(x)
            if i + 1 in self.ends:
                outputs.append(x)
        return outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return φ₁ … φ₄: relu1_2, relu2_2, relu3_4 and relu4_4 of VGG-19; relu3_3 and relu4_3 of VGG-16.

        Args:
            image: [B, 3, H, W], RGB in [-1, 1]; H, W ≥ 8.

        Returns:
            [B, 64, H, W], [B, 128, H/2, W/2], [B, 256, H/4, W/4], [B, 512, H/8, W/8], all ≥ 0.
        """
        return self.blocks(image, 4)


def _published_digest(path: Path) -> str:
    """Return the first 8 digits of the sha256 that torchvision's file names end in."""
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if named is None:
        raise UsageError(
            f"{path}: a .pth file must keep the name it was published under, which ends in the first 8 digits of its "
            "sha256 (vgg19-dcbb9e9d.pth), to be checked; rename it back or convert it to safetensors"
        )
    return named[1]


def vgg_from_file(path: Path, network: VggName) -> VggFeatures:
    """Load the frozen feature network from a file with torchvision's key names ``features.N.*``.

    ``vgg19`` takes torchvision's ``vgg19-dcbb9e9d.pth`` or the same as safetensors; a .pth is read
    only if its sha256 starts as its name says, and as plain weights (no code of it is run).
    ``vgg16`` takes ``vgg16-397923af.pth``, ``vgg16-caffe`` safetensors. Weights become float32; keys
    beyond the convolutions are left out.

    Raises:
        UsageError: the file cannot be read, is of another kind, contradicts its name, or lacks a key
            of the right shape.
    """
    kind = KINDS[network]
    if path.suffix not in kind.suffixes:
        raise UsageError(f"{path}: {network} is read from {' or '.join(kind.suffixes)} ({kind.source})")
    pickled = path.suffix == ".pth"
    weights = unpickle_weights(path, _published_digest(path), path.name) if pickled else read_safetensors(path)[0]
    vgg = VggFeatures(network)
    vgg.load_state_dict(matching_weights(weights, vgg.state_dict(), path, kind.source))
    return vgg
