"""The reconstruction network behind the InCo² loss (paper Fig. 4): a plain encoder-decoder."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ReconstructionConfig

STRIDE = 8  # of the middle features
NORM_GROUPS = 8


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """Convolution, group normalisation, leaky ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
    return [conv, nn.GroupNorm(NORM_GROUPS, out_channels), nn.LeakyReLU(0.2)]


class ReconstructionNetwork(nn.Module):
    """Encode a face into the features that eqs 6 and 7 compare, and decode it again.

    There are no skip connections: all that the decoder knows passes through the middle layer. Its
    tanh bounds the codes, so that the loss keeps its scale from one training to the next.
    """

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        width = config.width
        self.encoder = nn.Sequential(
            *conv_block(3, width, 2),
            *conv_block(width, 2 * width, 2),
            *conv_block(2 * width, 4 * width, 2),
            *conv_block(4 * width, 4 * width),
            nn.Conv2d(4 * width, config.channels, 3, padding=1),
            nn.Tanh(),
        )
        self.decoder = nn.Sequential(
            *conv_block(config.channels, 4 * width),
            nn.Upsample(scale_factor=2.0),
            *conv_block(4 * width, 2 * width),
            nn.Upsample(scale_factor=2.0),
            *conv_block(2 * width, width),
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(width, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Reconstruct ``image`` [B, 3, H, W] in [-1, 1]; H and W are multiples of 8.

        ``encoder`` alone gives the features [B, channels, H/8, W/8] in [-1, 1].
        """
        return self.decoder(self.encoder(image))
