"""Normalisations and the convolutions that the exporter folds them into.

A folded weight is a product, which float16 does not hold exactly. Here the product is rounded before anything is
traced or compared, so that the graph can store it in half the room and still equals PyTorch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def round_folded(network: nn.Module) -> None:
    """Round the convolutions of ``network`` as they will be folded; its normalisations then change nothing of them.

    Args:
        network: in evaluation mode; it is changed in place. Pairs are a convolution without a bias and the batch
            normalisation that follows it in a sequence of layers.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for convolution, norm in pairwise(sequence):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                folded = convolution.weight * scale_of(norm)[:, None, None, None]
                convolution.weight.copy_(folded.half())
                unfold(norm)


@torch.no_grad()
def round_fused(network: Network) -> Network:
    """Fuse the pairs of :func:`round_folded` into one convolution each, and round all weights to float16, in place.

    For a network that is not learnt on from its graph: no normalisation is left. What is rounded here is what PyTorch
    computes in every comparison.
    """
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            convolution, norm = sequence[index], sequence[index + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(convolution, norm)
                sequence[index + 1] = nn.Identity()
    for weight in network.parameters():
        weight.copy_(weight.half().float())
    return network


def scale_of(norm: nn.BatchNorm2d) -> torch.Tensor:
    """Return what a normalisation in use multiplies each channel by, [C]."""
    assert norm.running_var is not None
    scale: torch.Tensor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale


@torch.no_grad()
def unfold(norm: nn.BatchNorm2d) -> None:
    """Let ``norm`` follow a convolution that was multiplied by its scale, with the statistics of what it now sees."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = scale_of(norm)
    norm.running_mean.mul_(scale)
    norm.running_var.mul_(scale.square())
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
