"""What an evaluation found: figures of each image and bucket, as JSON and as the paper's Table 1."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from showface.runtime.errors import UsageError

from ..faces import BUCKETS, Face
from ..metrics import Rgb, l1_percent, psnr, ssim
from .feature_networks import FrechetLabel
from .paper_tables import PaperRow

MISSING = "–"


@dataclass(frozen=True, slots=True)
class ImageScores:
    """One completed face against the ground truth."""

    name: str
    bucket: str
    l1_percent: float
    psnr: float  # dB; infinite where the result equals the ground truth
    ssim: float
    perceptual: float | None = None  # see :func:`.perceptual.relative_distance`
    lpips: float | None = None


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
        perceptual: relative distance in VGG-16's layers, ≥ 0; None if not measured.
        lpips: ≥ 0; None if not measured.
    """

    l1_percent: float
    psnr: float
    ssim: float
    frechet: float | None
    images: int
    exact: int
    perceptual: float | None = None
    lpips: float | None = None


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

    def document(self) -> dict[str, Any]:
        """Return the figures for strict JSON: an infinite PSNR becomes null."""
        return {
            "frechet_label": self.frechet_label,
            "buckets": {name: _finite(asdict(scores)) for name, scores in self.buckets.items()},
            "images": [_finite(asdict(row)) for row in self.rows],
        }


def to_json(reports: Mapping[str, Report]) -> str:
    """Return the reports of all methods, by name, as strict JSON."""
    document = {"methods": {name: report.document() for name, report in reports.items()}}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def score_image(face: Face, result: Rgb, perceptual: float | None, lpips: float | None) -> ImageScores:
    """Compare one result [256, 256, 3] with its face; the distances that networks measured are handed in."""
    figures = l1_percent(result, face.rgb), psnr(result, face.rgb), ssim(result, face.rgb)
    return ImageScores(face.name, face.bucket, *figures, perceptual, lpips)


def score_bucket(rows: Sequence[ImageScores], frechet: float | None) -> BucketScores:
    """Average the rows of one bucket, at least one."""
    inexact = [row.psnr for row in rows if math.isfinite(row.psnr)]
    return BucketScores(
        l1_percent=fmean(row.l1_percent for row in rows),
        psnr=fmean(inexact) if inexact else math.inf,
        ssim=fmean(row.ssim for row in rows),
        frechet=frechet,
        images=len(rows),
        exact=len(rows) - len(inexact),
        perceptual=_mean_or_none(row.perceptual for row in rows),
        lpips=_mean_or_none(row.lpips for row in rows),
    )


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None


def markdown_table(reports: Mapping[str, Report], paper: Mapping[str, PaperRow]) -> str:
    """Return the layout of the paper's Table 1, the paper's rows last; the columns that were measured alone.

    The paper's FID stands in the column only if that holds an FID, or nothing of ours.

    Raises:
        UsageError: the Fréchet distances come from different networks.
    """
    labels = {report.frechet_label for report in reports.values()} - {None}
    if len(labels) > 1:
        raise UsageError(f"{' and '.join(sorted(map(str, labels)))} do not compare; measure all methods with one file")
    label = next(iter(labels), None) or "FID"
    rows: list[tuple[str, Mapping[str, Mapping[str, float | None]]]] = []
    for name, report in reports.items():
        rows.append((name.replace("|", "\\|"), {bucket: asdict(report.buckets[bucket]) for bucket in BUCKETS}))
    for name, row in paper.items():
        figures = {b: {**row[b]._asdict(), "frechet": row[b].fid if label == "FID" else None} for b in BUCKETS}
        rows.append((f"paper, {name} †", figures))
    columns = {"l1_percent": "L1(%) ↓", "frechet": f"{label} ↓", "psnr": "PSNR ↑", "ssim": "SSIM ↑"}
    for key, title in (("perceptual", "VGG-16 distance ↓"), ("lpips", "LPIPS ↓")):
        if any(figures[bucket].get(key) is not None for _, figures in rows for bucket in BUCKETS):
            columns[key] = title
    lines = [
        ["Methods", *(cell for title in columns.values() for cell in (title, "", ""))],
        ["---", *["---:"] * (3 * len(columns))],
        ["", *[f"{bucket.replace('-', '–')}%" for bucket in BUCKETS] * len(columns)],
    ]
    lines += [[name, *(_cell(row[bucket].get(key)) for key in columns for bucket in BUCKETS)] for name, row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    remark = "\n† On its own 2,000 test images, not these." if paper else ""
    return f"{table}\n\n{_note(reports)}{remark}\n"


def _cell(value: float | None) -> str:
    if value is None:
        return MISSING
    return "∞" if math.isinf(value) else f"{value:.3f}"


def _note(reports: Mapping[str, Report]) -> str:
    counts = {name: [report.buckets[bucket] for bucket in BUCKETS] for name, report in reports.items()}
    parts = [f"{name}: {scores[0].images} images a bucket" for name, scores in counts.items()]
    parts += [
        f"{name}: PSNR without {sum(s.exact for s in scores)} results that equal the ground truth"
        for name, scores in counts.items()
        if any(s.exact for s in scores)
    ]
    return "; ".join(parts) + "."
