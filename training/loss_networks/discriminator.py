"""The discriminator of the adversarial loss (paper eq. 13): PatchGAN (Isola et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

STRIDES = (2, 2, 2, 1, 1)


class PatchDiscriminator(nn.Module):
    """Judge each 70×70 patch of a face as real or completed.

    Spectral normalisation (Miyato et al. 2018) stands in for PatchGAN's batch normalisation: the
    logits of a face depend on no other face, nor on how a batch is split among processes. In
    training mode every call refines the estimate of the spectral norms, which is part of the state.

    Args:
        width: channels of the first layer; each of the next three doubles them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width, 1)
        layers: list[nn.Module] = []
        for in_channels, out_channels, stride in zip(widths[:-1], widths[1:], STRIDES, strict=True):
            layers.append(spectral_norm(nn.Conv2d(in_channels, out_channels, 4, stride, padding=1)))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        """Return a logit for each patch, [B, 1, H/8 - 2, W/8 - 2]; positive means real.

        Args:
            image: [B, 3, H, W] in [-1, 1]; H, W ≥ 24.
        """
        return self.layers(image)
