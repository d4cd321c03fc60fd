"""What an evaluation found: figures of each image and bucket, as JSON and as the paper's Table 1."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from showface.runtime.errors import UsageError

from ..faces import BUCKETS, Face
from ..metrics import Rgb, l1_percent, psnr, ssim
from .frechet import FrechetLabel
from .paper_tables import PAPER_TABLES

PAPER_NAME = "MDRNets in the paper (its own 2,000 images, not these)"
MISSING = "–"


@dataclass(frozen=True, slots=True)
class ImageScores:
    """One completed face against the ground truth."""

    name: str
    bucket: str
    l1_percent: float
    psnr: float  # dB; infinite where the result equals the ground truth
    ssim: float


@dataclass(frozen=True, slots=True)
class BucketScores:
    """Means over the images of one bucket.

    Attributes:
        l1_percent: mean absolute error in percent of the value range.
        psnr: dB; the images that equal the ground truth are left out, it is infinite if all do.
        ssim: at most 1.
        frechet: distance of the results' features from those of the ground truth; None if not measured.
        images: their number.
        exact: how many of them equal the ground truth.
    """

    l1_percent: float
    psnr: float
    ssim: float
    frechet: float | None
    images: int
    exact: int


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one method.

    Attributes:
        buckets: means, by bucket.
        rows: figures of each image, bucket after bucket, in the order of the files.
        frechet_label: name of the feature network; None if there was none.
    """

    buckets: Mapping[str, BucketScores]
    rows: tuple[ImageScores, ...]
    frechet_label: FrechetLabel | None = None

    def to_json(self) -> str:
        """Return the figures as strict JSON: an infinite PSNR becomes null."""
        document = {
            "frechet_label": self.frechet_label,
            "buckets": {name: _finite(asdict(scores)) for name, scores in self.buckets.items()},
            "images": [_finite(asdict(row)) for row in self.rows],
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def score_image(face: Face, result: Rgb) -> ImageScores:
    """Compare one result [256, 256, 3] with its face."""
    return ImageScores(
        face.name, face.bucket, l1_percent(result, face.rgb), psnr(result, face.rgb), ssim(result, face.rgb)
    )


def score_bucket(rows: Sequence[ImageScores], frechet: float | None) -> BucketScores:
    """Average the rows of one bucket, at least one."""
    inexact = [row.psnr for row in rows if math.isfinite(row.psnr)]
    return BucketScores(
        l1_percent=_mean(row.l1_percent for row in rows),
        psnr=_mean(inexact) if inexact else math.inf,
        ssim=_mean(row.ssim for row in rows),
        frechet=frechet,
        images=len(rows),
        exact=len(rows) - len(inexact),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def markdown_table(reports: Mapping[str, Report]) -> str:
    """Return the layout of the paper's Table 1, the paper's own row last.

    The paper's FID stands in the column only if that holds an FID, or nothing of ours.

    Args:
        reports: by the name of the method; at least one.

    Raises:
        UsageError: their Fréchet distances come from different networks.
    """
    labels = {report.frechet_label for report in reports.values()} - {None}
    if len(labels) > 1:
        raise UsageError(f"{' and '.join(sorted(map(str, labels)))} do not compare; measure all methods with one file")
    label = next(iter(labels), None) or "FID"
    groups = ("L1(%) ↓", f"{label} ↓", "PSNR ↑", "SSIM ↑")
    lines = [
        ["Methods", *(cell for group in groups for cell in (group, "", ""))],
        ["---", *["---:"] * (3 * len(groups))],
        ["", *[f"{bucket.replace('-', '–')}%" for bucket in BUCKETS] * len(groups)],
    ]
    for name, report in reports.items():
        scores = [report.buckets[bucket] for bucket in BUCKETS]
        lines.append(
            [
                name.replace("|", "\\|"),
                *(f"{s.l1_percent:.3f}" for s in scores),
                *(MISSING if s.frechet is None else f"{s.frechet:.3f}" for s in scores),
                *("∞" if math.isinf(s.psnr) else f"{s.psnr:.3f}" for s in scores),
                *(f"{s.ssim:.3f}" for s in scores),
            ]
        )
    paper = [PAPER_TABLES["modules"]["full"][bucket] for bucket in BUCKETS]
    lines.append(
        [
            PAPER_NAME,
            *(f"{s.l1_percent:.3f}" for s in paper),
            *(f"{s.fid:.3f}" if label == "FID" else MISSING for s in paper),
            *(f"{s.psnr:.3f}" for s in paper),
            *(f"{s.ssim:.3f}" for s in paper),
        ]
    )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_note(reports)}\n"


def _note(reports: Mapping[str, Report]) -> str:
    counts = {name: [report.buckets[bucket] for bucket in BUCKETS] for name, report in reports.items()}
    parts = [f"{name}: {scores[0].images} images a bucket" for name, scores in counts.items()]
    parts += [
        f"{name}: PSNR without {sum(s.exact for s in scores)} results that equal the ground truth"
        for name, scores in counts.items()
        if any(s.exact for s in scores)
    ]
    return "; ".join(parts) + "."
