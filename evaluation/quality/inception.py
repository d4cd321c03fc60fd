"""The Inception network of the Fréchet Inception Distance.

InceptionV3 (Szegedy et al. 2016) as TensorFlow released it on 2015-12-05 and as the FID is defined
on (Heusel et al. 2017). It differs from torchvision's network of the same key names: the average
pools of the mixed blocks leave the padding out of the count, and the last block pools by maximum.

Written from the published architecture and proved on random weights against an independent
computation; it was **not** run with the real weight file, which was not to be had.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from showface.training.weight_files import matching_weights, unpickle_weights

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid's release "fid_weights"
SHA256_PREFIX = "6726825d"  # of that file, and part of its name
INPUT_SIZE = 299
BATCH_NORM_EPS = 0.001

Kernel = tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H', W']."""
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class BlockA(nn.Module):
    """35×35: 1×1, 5×5 and double 3×3 branches."""

    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 64, (1, 1))
        self.branch5x5_1 = ConvNorm(inputs, 48, (1, 1))
        self.branch5x5_2 = ConvNorm(48, 64, (5, 5))
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, (1, 1))
        self.branch3x3dbl_2 = ConvNorm(64, 96, (3, 3))
        self.branch3x3dbl_3 = ConvNorm(96, 96, (3, 3))
        self.branch_pool = ConvNorm(inputs, pool, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, 224 + pool, h, w]."""
        small = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), small, double, self.branch_pool(_average(x))], dim=1)


class BlockB(nn.Module):
    """35×35 to 17×17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, (3, 3), stride=2, padded=False)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, (1, 1))
        self.branch3x3dbl_2 = ConvNorm(64, 96, (3, 3))
        self.branch3x3dbl_3 = ConvNorm(96, 96, (3, 3), stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, 480 + inputs, h/2, w/2]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _halve(x)], dim=1)


class BlockC(nn.Module):
    """17×17: 7×7 convolutions as pairs of 1×7 and 7×1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(768, 192, (1, 1))
        self.branch7x7_1 = ConvNorm(768, width, (1, 1))
        self.branch7x7_2 = ConvNorm(width, width, (1, 7))
        self.branch7x7_3 = ConvNorm(width, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNorm(768, width, (1, 1))
        self.branch7x7dbl_2 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_3 = ConvNorm(width, width, (1, 7))
        self.branch7x7dbl_4 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_5 = ConvNorm(width, 192, (1, 7))
        self.branch_pool = ConvNorm(768, 192, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 768, h, w] to [B, 768, h, w]."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], dim=1)


class BlockD(nn.Module):
    """17×17 to 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(768, 192, (1, 1))
        self.branch3x3_2 = ConvNorm(192, 320, (3, 3), stride=2, padded=False)
        self.branch7x7x3_1 = ConvNorm(768, 192, (1, 1))
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNorm(192, 192, (3, 3), stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 768, h, w] to [B, 1280, h/2, w/2]."""
        large = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(large), _halve(x)], dim=1)


class BlockE(nn.Module):
    """8×8: 3×3 convolutions as 1×3 beside 3×1; ``by_maximum`` is how the last block pools."""

    def __init__(self, inputs: int, by_maximum: bool) -> None:
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = ConvNorm(inputs, 320, (1, 1))
        self.branch3x3_1 = ConvNorm(inputs, 384, (1, 1))
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNorm(inputs, 448, (1, 1))
        self.branch3x3dbl_2 = ConvNorm(448, 384, (3, 3))
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1))
        self.branch_pool = ConvNorm(inputs, 192, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, 2048, h, w]."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.by_maximum else _average(x)
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ],
            dim=1,
        )


class FidInception(nn.Module):
    """The layers up to the last pool; attributes have the names of torchvision's ``inception_v3``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, (3, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, (3, 3), padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = BlockC(128), BlockC(160), BlockC(160), BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, by_maximum=False), BlockE(2048, by_maximum=True)

    def forward(self, image: Tensor) -> Tensor:
        """Return the features ``pool3`` [B, 2048] of ``image`` [B, 3, H, W], RGB in [-1, 1]; any H and W."""
        x = F.interpolate(image, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
        x = _halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        pooled: Tensor = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))
        return pooled


def inception_from_file(path: Path) -> FidInception:
    """Load pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth``, frozen and in evaluation mode.

    The digest is checked before the file is unpickled, and no code of it is run. The classifier
    ``fc`` and ``AuxLogits`` are left out. Not run with the real file; see the module.

    Raises:
        UsageError: the file cannot be read, is another one, or lacks a key of the right shape.
    """
    state = unpickle_weights(path, SHA256_PREFIX, FILE_NAME)
    network = FidInception()
    # The count of training batches has no part in the result, and older files lack it.
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    network.load_state_dict(matching_weights(state, wanted, path, FILE_NAME), strict=False)
    return network.eval().requires_grad_(False)
