"""Convolution layers shared by the networks: partial, gated, and spatially-adaptive ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_GROUP = 8  # channels
MAX_GAMMA = 0.9  # of SPADE


class PartialConv2d(nn.Module):
    """Convolution over valid pixels only (Liu et al. 2018).

    The response is multiplied by ``k² / count``, where ``count`` is the number of valid pixels
    under the kernel; padding counts as invalid. ``count`` is clamped at one rather than offset by
    an epsilon, because a window without valid pixels would overflow float16 otherwise.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: k, odd.
        stride: of the convolution.
        extra_channels: E, of features that come apart from ``x``.
        scale_limit: greatest ``k² / count``; None for k². A factor that training hardly ever reaches makes
            coloured noise of the one known pixel beside a hole of another shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        extra_channels: int = 0,
        scale_limit: float | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.least_count = 1.0 if scale_limit is None else max(1.0, kernel_size**2 / scale_limit)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.extra = None
        if extra_channels:
            self.extra = nn.Conv2d(extra_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
            bound = ((in_channels + extra_channels) * kernel_size**2) ** -0.5  # PyTorch's, of all inputs together
            for part in (self.conv, self.extra):
                nn.init.uniform_(part.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x: Tensor, valid: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Convolve ``x``, whose invalid pixels are already zero.

        Args:
            x: [B, C, H, W] features, zero where nothing is valid.
            valid: [B, 1, H, W] share of valid channels a pixel, in [0, 1].
            extra: [B, E, H, W] more features, where the layer was made for them; as if joined to ``x``.

        Returns:
            Features [B, C', H', W'] and their validity [B, 1, H', W'], 0 or 1.

        Raises:
            ValueError: ``extra`` is given to a layer that was not made for it, or withheld from one that was.
        """
        if (extra is None) != (self.extra is None):
            raise ValueError(f"extra features are {'missing' if extra is None else 'not what this layer was made for'}")
        area = self.kernel_size**2
        count = area * F.avg_pool2d(valid, self.kernel_size, self.stride, self.kernel_size // 2)
        response = self.conv(x) if self.extra is None else self.conv(x) + self.extra(extra)
        # The casts matter under autocast only: they keep the features in its lower precision.
        scale = (area / count.clamp(min=self.least_count)).to(response.dtype)
        return response * scale + self.bias.to(response.dtype), (count > 0).to(response.dtype)


class GatedConv2d(nn.Module):
    """Convolution with a learned soft gate for each pixel (Yu et al. 2019).

    The gate has one channel: it says where something is to be painted, and costs next to nothing.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.feature = nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation)
        self.gate = nn.Conv2d(in_channels, 1, 3, stride, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H/stride, W/stride]."""
        return elu(self.feature(x)) * torch.sigmoid(self.gate(x))


def elu(x: Tensor) -> Tensor:
    """Return max(x, 0) + exp(min(x, 0)) - 1.

    ONNX Runtime's own Elu computes the last values of a thread's share in another way than the others, so that a
    face would depend, in the last bit, on how many stand beside it.
    """
    return F.relu(x) + (torch.exp(-F.relu(-x)) - 1.0)


class GatedResBlock(nn.Module):
    """Residual block of a dilated gated convolution and a plain one, on normalised features.

    What is normalised before each convolution is the branch: the stream itself grows by one such branch a block.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels)
        self.gated = GatedConv2d(channels, channels, dilation=dilation)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.conv(self.norm2(self.gated(self.norm1(x))))


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation that keeps what channels of one group differ by; eight channels a group."""
    return nn.GroupNorm(max(1, channels // NORM_GROUP), channels, affine=affine)


def repeat_pixels(x: Tensor, times: int) -> Tensor:
    """Enlarge ``x`` [B, C, H, W], each pixel becoming ``times``² equal ones."""
    return x if times == 1 else F.interpolate(x, scale_factor=float(times), mode="nearest")


class Join(nn.Module):
    """Enlarge features, and add those of the skip connection.

    Both are normalised before they meet: a stream that has grown over many blocks would drown the skip. The stream
    is so at its own resolution, since repeated pixels have the same mean and variance.
    """

    def __init__(self, in_channels: int, out_channels: int, times: int = 2) -> None:
        super().__init__()
        self.times = times
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.norm, self.norm_skip = group_norm(out_channels), group_norm(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map ``x`` [B, C, H, W] and ``skip`` [B, C', H·times, W·times] to the shape of ``skip``."""
        return repeat_pixels(self.norm(self.reduce(x)), self.times) + self.norm_skip(skip)


class Spade(nn.Module):
    """Spatially-adaptive denormalisation (Park et al. 2019) with a bounded scale.

    Scale and shift are computed at the resolution of ``guidance`` or below and enlarged to that of the features.
    The scale is 1 + γ, γ within ±0.9: unbounded, it multiplies from block to block. Both start at zero.

    Args:
        channels: C.
        guidance_channels: G.
        hidden: channels between guidance and scale.
        stride: guidance pixels a pixel of the features; 1 where the features are larger than the guidance.
    """

    def __init__(self, channels: int, guidance_channels: int, hidden: int, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Conv2d(guidance_channels, hidden, 3, stride, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 1)
        self.beta = nn.Conv2d(hidden, channels, 1)
        for layer in (self.gamma, self.beta):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Normalise ``x`` [B, C, H, W] and modulate it by ``guidance`` [B, G, h, w]."""
        shared = F.relu(self.shared(guidance))
        gamma, beta = MAX_GAMMA * torch.tanh(self.gamma(shared)), self.beta(shared)
        times = x.shape[-1] // shared.shape[-1]
        if times > 1:
            # By a factor rather than to a size: ONNX Runtime resizes blocks of channels only where it is a constant.
            gamma, beta = (F.interpolate(t, scale_factor=float(times), mode="bilinear") for t in (gamma, beta))
        return self.norm(x) * (1 + gamma) + beta


class SpadeResBlock(nn.Module):
    """Residual block whose normalisations are guided (Park et al. 2019); the arguments are those of ``Spade``."""

    def __init__(self, channels: int, guidance_channels: int, hidden: int, stride: int = 1) -> None:
        super().__init__()
        self.spade1 = Spade(channels, guidance_channels, hidden, stride)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.spade2 = Spade(channels, guidance_channels, hidden, stride)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape under ``guidance`` [B, G, h, w]."""
        y = self.conv1(F.leaky_relu(self.spade1(x, guidance), 0.2))
        return x + self.conv2(F.leaky_relu(self.spade2(y, guidance), 0.2))
