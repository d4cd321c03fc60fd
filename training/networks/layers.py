"""Convolution layers shared by the networks: partial, gated, and spatially-adaptive ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Convolution with a learned soft gate for each output value (Yu et al. 2019).

    Two convolutions rather than one of twice the channels: a runtime fuses the sigmoid into the gate's, and
    nothing has to cut the result in two.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.feature = nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation)
        self.gate = nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H/stride, W/stride]."""
        return F.elu(self.feature(x)) * torch.sigmoid(self.gate(x))


class GatedResBlock(nn.Module):
    """Residual block of a dilated gated convolution and a plain one."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.gated = GatedConv2d(channels, channels, dilation=dilation)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.conv(self.gated(x))


def repeat_pixels(x: Tensor, times: int) -> Tensor:
    """Enlarge ``x`` [B, C, H, W], each pixel becoming ``times``² equal ones."""
    return x if times == 1 else F.interpolate(x, scale_factor=float(times), mode="nearest")


class Spade(nn.Module):
    """Spatially-adaptive denormalisation (Park et al. 2019), of features that ``repeat`` enlarges.

    Scale and shift are computed at the resolution of ``guidance`` and resized to that of the
    features: at full size they would cost more than the rest of the refiner. The features are enlarged, each
    pixel repeated, after they were normalised: repetition changes neither mean nor variance.
    """

    def __init__(self, channels: int, guidance_channels: int, hidden: int, repeat: int = 1) -> None:
        super().__init__()
        self.repeat = repeat
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Conv2d(guidance_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Normalise ``x`` [B, C, H, W], enlarge it, and modulate it by ``guidance`` [B, G, h, w]."""
        shared = F.relu(self.shared(guidance))
        gamma, beta = self.gamma(shared), self.beta(shared)
        normal = repeat_pixels(self.norm(x), self.repeat)
        scale = normal.shape[-1] // guidance.shape[-1]
        if scale > 1:
            # By a factor rather than to a size: ONNX Runtime resizes blocks of channels only where it is a constant.
            gamma, beta = (F.interpolate(t, scale_factor=float(scale), mode="bilinear") for t in (gamma, beta))
        return normal * (1 + gamma) + beta


class SpadeResBlock(nn.Module):
    """Residual block whose normalisations are guided (Park et al. 2019), of features that ``repeat`` enlarges."""

    def __init__(
        self, in_channels: int, out_channels: int, guidance_channels: int, hidden: int, repeat: int = 1
    ) -> None:
        super().__init__()
        self.repeat = repeat
        self.spade1 = Spade(in_channels, guidance_channels, hidden, repeat)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.spade2 = Spade(out_channels, guidance_channels, hidden)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H·repeat, W·repeat] under ``guidance`` [B, G, h, w]."""
        y = self.conv1(F.leaky_relu(self.spade1(x, guidance), 0.2))
        y = self.conv2(F.leaky_relu(self.spade2(y, guidance), 0.2))
        return repeat_pixels(self.shortcut(x), self.repeat) + y
