"""Figures of the paper's ablation tables (CelebA-HQ, 2,000 images), to print beside one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PaperScores(NamedTuple):
    """One cell group of a table: one row, one bucket of hole ratio."""

    l1_percent: float
    fid: float
    psnr: float
    ssim: float


PaperRow = Mapping[str, PaperScores]  # by bucket


def _row(small: PaperScores, medium: PaperScores, large: PaperScores) -> PaperRow:
    return {"1-20": small, "20-40": medium, "40-60": large}


_FULL = _row(
    PaperScores(0.585, 2.369, 35.772, 0.968),
    PaperScores(1.451, 6.410, 28.669, 0.900),
    PaperScores(2.937, 12.086, 24.177, 0.800),
)

PAPER_TABLES: Mapping[str, Mapping[str, PaperRow]] = {
    "modules": {  # Table 2
        "without-memory": _row(
            PaperScores(0.625, 2.698, 35.118, 0.963),
            PaperScores(1.550, 7.205, 28.283, 0.890),
            PaperScores(3.063, 13.737, 24.017, 0.789),
        ),
        "without-mrem": _row(
            PaperScores(0.595, 2.221, 35.467, 0.967),
            PaperScores(1.473, 6.529, 28.470, 0.897),
            PaperScores(2.959, 13.359, 24.080, 0.798),
        ),
        "full": _FULL,
    },
    "losses": {  # Table 3
        "without-semantic": _row(
            PaperScores(0.589, 2.400, 35.676, 0.967),
            PaperScores(1.461, 6.541, 28.594, 0.898),
            PaperScores(2.954, 12.367, 24.111, 0.796),
        ),
        "without-intra": _row(
            PaperScores(0.587, 2.472, 35.646, 0.967),
            PaperScores(1.452, 7.011, 28.631, 0.897),
            PaperScores(2.939, 13.721, 24.171, 0.795),
        ),
        "without-inter": _row(
            PaperScores(0.588, 2.421, 35.639, 0.967),
            PaperScores(1.462, 6.874, 28.528, 0.897),
            PaperScores(2.961, 13.292, 24.171, 0.794),
        ),
        "full": _FULL,
    },
    "memory": {  # Table 4
        "slots-32": _row(
            PaperScores(0.627, 3.194, 35.214, 0.963),
            PaperScores(1.547, 8.017, 28.344, 0.891),
            PaperScores(3.046, 14.124, 24.017, 0.791),
        ),
        "slots-64": _row(
            PaperScores(0.584, 2.308, 35.718, 0.968),
            PaperScores(1.452, 6.421, 28.593, 0.898),
            PaperScores(2.951, 12.523, 24.079, 0.796),
        ),
        "slots-128": _FULL,
        "slots-256": _row(
            PaperScores(0.600, 2.670, 35.441, 0.966),
            PaperScores(1.494, 7.741, 28.391, 0.893),
            PaperScores(3.000, 15.557, 23.996, 0.791),
        ),
        "slots-512": _row(
            PaperScores(0.618, 2.927, 35.397, 0.965),
            PaperScores(1.532, 7.626, 28.452, 0.893),
            PaperScores(3.037, 13.712, 24.901, 0.793),
        ),
        "non-disentangled": _row(
            PaperScores(0.662, 5.244, 34.987, 0.962),
            PaperScores(1.639, 15.452, 28.339, 0.893),
            PaperScores(3.177, 24.495, 24.152, 0.800),
        ),
    },
}
