"""Figures of the paper's Tables 1 to 4, to print beside one's own: its test images, 2,000 a dataset, are not these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from showface.runtime.errors import UsageError

from ..faces import BUCKETS


class PaperScores(NamedTuple):
    """Figures of one row in one bucket of hole ratio."""

    l1_percent: float
    fid: float
    psnr: float
    ssim: float


PaperRow = Mapping[str, PaperScores]  # by bucket


def _row(*buckets: tuple[float, float, float, float]) -> PaperRow:
    return dict(zip(BUCKETS, map(PaperScores._make, buckets), strict=True))


PAPER_COMPARISON: Mapping[str, Mapping[str, PaperRow]] = {  # Table 1: by dataset and method
    "celebahq": {
        "pconv": _row((1.131, 12.716, 32.240, 0.941), (2.311, 27.957, 26.085, 0.862), (4.363, 42.594, 21.900, 0.762)),
        "deepfillv2": _row(
            (0.788, 9.766, 32.700, 0.944), (2.066, 22.793, 25.998, 0.848), (3.968, 29.243, 21.943, 0.736)
        ),
        "pic": _row((0.780, 4.190, 33.006, 0.951), (2.036, 11.035, 25.961, 0.859), (4.311, 21.360, 21.263, 0.730)),
        "ctsdg": _row((1.350, 9.171, 32.198, 0.927), (2.213, 14.324, 26.823, 0.856), (3.900, 22.889, 22.490, 0.747)),
        "dsi": _row((0.820, 9.037, 32.699, 0.938), (2.077, 20.327, 26.107, 0.831), (4.149, 29.040, 21.708, 0.704)),
        "ict": _row((0.949, 3.136, 33.416, 0.959), (2.004, 8.715, 26.639, 0.879), (3.901, 16.747, 22.013, 0.765)),
        "mdrnets": _row((0.585, 2.369, 35.772, 0.968), (1.451, 6.410, 28.669, 0.900), (2.937, 12.086, 24.177, 0.800)),
    },
    "ffhq": {
        "pconv": _row((0.720, 12.208, 32.592, 0.955), (2.178, 30.403, 25.422, 0.867), (4.411, 45.709, 21.237, 0.761)),
        "deepfillv2": _row(
            (0.715, 12.062, 32.428, 0.946), (2.104, 29.276, 25.470, 0.845), (4.250, 40.295, 21.301, 0.725)
        ),
        "pic": _row((0.709, 5.411, 32.640, 0.952), (2.099, 14.344, 25.490, 0.854), (4.573, 27.334, 20.819, 0.719)),
        "ctsdg": _row((0.419, 3.916, 34.946, 0.968), (1.532, 13.477, 27.044, 0.888), (3.569, 28.495, 22.272, 0.765)),
        "dsi": _row((0.746, 10.483, 32.659, 0.941), (2.067, 25.772, 25.780, 0.834), (4.340, 39.127, 21.241, 0.702)),
        "ict": _row((0.982, 3.244, 33.172, 0.959), (2.085, 8.360, 26.373, 0.877), (4.036, 14.149, 21.809, 0.762)),
        "mdrnets": _row((0.470, 2.473, 36.046, 0.972), (1.395, 7.170, 28.333, 0.903), (3.068, 13.748, 23.575, 0.797)),
    },
}

_FULL = PAPER_COMPARISON["celebahq"]["mdrnets"]

PAPER_TABLES: Mapping[str, Mapping[str, PaperRow]] = {  # Tables 2 to 4, all of CelebA-HQ
    "modules": {  # Table 2
        "without-memory": _row(
            (0.625, 2.698, 35.118, 0.963), (1.550, 7.205, 28.283, 0.890), (3.063, 13.737, 24.017, 0.789)
        ),
        "without-mrem": _row(
            (0.595, 2.221, 35.467, 0.967), (1.473, 6.529, 28.470, 0.897), (2.959, 13.359, 24.080, 0.798)
        ),
        "full": _FULL,
    },
    "losses": {  # Table 3
        "without-semantic": _row(
            (0.589, 2.400, 35.676, 0.967), (1.461, 6.541, 28.594, 0.898), (2.954, 12.367, 24.111, 0.796)
        ),
        "without-intra": _row(
            (0.587, 2.472, 35.646, 0.967), (1.452, 7.011, 28.631, 0.897), (2.939, 13.721, 24.171, 0.795)
        ),
        "without-inter": _row(
            (0.588, 2.421, 35.639, 0.967), (1.462, 6.874, 28.528, 0.897), (2.961, 13.292, 24.171, 0.794)
        ),
        "full": _FULL,
    },
    "memory": {  # Table 4
        "slots-32": _row((0.627, 3.194, 35.214, 0.963), (1.547, 8.017, 28.344, 0.891), (3.046, 14.124, 24.017, 0.791)),
        "slots-64": _row((0.584, 2.308, 35.718, 0.968), (1.452, 6.421, 28.593, 0.898), (2.951, 12.523, 24.079, 0.796)),
        "slots-128": _FULL,
        "slots-256": _row((0.600, 2.670, 35.441, 0.966), (1.494, 7.741, 28.391, 0.893), (3.000, 15.557, 23.996, 0.791)),
        "slots-512": _row((0.618, 2.927, 35.397, 0.965), (1.532, 7.626, 28.452, 0.893), (3.037, 13.712, 24.901, 0.793)),
        "non-disentangled": _row(
            (0.662, 5.244, 34.987, 0.962), (1.639, 15.452, 28.339, 0.893), (3.177, 24.495, 24.152, 0.800)
        ),
    },
}


def paper_rows(names: Sequence[str]) -> dict[str, PaperRow]:
    """Return rows of Table 1 by ``dataset/method``, in the order asked for; ``ffhq`` alone stands for its seven.

    >>> list(paper_rows(["celebahq/mdrnets"]))
    ['celebahq/mdrnets']

    Raises:
        UsageError: a name is no row of the table.
    """
    found: dict[str, PaperRow] = {}
    for name in names:
        dataset, _, method = name.lower().partition("/")
        methods = PAPER_COMPARISON.get(dataset, {})
        if method not in ("", *methods) or not methods:
            known = " or ".join(PAPER_COMPARISON), ", ".join(PAPER_COMPARISON["celebahq"])
            raise UsageError(f"{name} is no row of the paper's Table 1; give {known[0]}, alone or with /{known[1]}")
        found |= {f"{dataset}/{row}": methods[row] for row in ([method] if method else methods)}
    return found
