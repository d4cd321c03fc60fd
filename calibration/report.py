"""The report: one HTML page that explains what was quantised, at what cost, and what the faces look like."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray

from showface.evaluation.metrics import Rgb
from showface.evaluation.parity.report import png_address
from showface.runtime.backends.chain import Session
from showface.runtime.files import write_side
from showface.runtime.images.codec import encode_photo
from showface.runtime.stages import CHAIN_OUTPUT
from showface.runtime.untrusted.terminal import printable_value

from .calibrate import CalibrationResult
from .planning.quality import FaceScores, compose_face, run_from
from .planning.sensitivity import Sensitivity
from .quantize import Range
from .recording import Recorded

AMPLIFICATION = 8
GREY_LEVEL = 90
_INT8, _FLOAT = "#3b6ea5", "#bbbbbb"


def write_report(path: Path, outcome: CalibrationResult, overwrite: bool = False) -> None:
    """Write the HTML page, which refers to no other file; ``overwrite`` replaces what somebody else wrote there.

    Raises:
        ShowfaceError: as :func:`showface.runtime.files.write_side`.
    """
    loader = PackageLoader("showface.calibration", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=printable_value)
    page = environment.get_template("report.html.j2").render(
        plan=outcome.plan,
        figures=outcome.to_dict(),
        sensitivity={
            stage: sensitivity_chart([item for item in outcome.sensitivities if item.stage == stage])
            for stage in dict.fromkeys(item.stage for item in outcome.sensitivities)
        },
        ranges={
            stage: ranges_chart(ranges) for stage in outcome.shop.ranges if (ranges := outcome.shop.used_ranges(stage))
        },
        faces=face_rows(outcome.shop.open(outcome.plan), outcome.checked, outcome.quality.scores),
        amplification=AMPLIFICATION,
    )
    write_side(path, page.encode(), overwrite)


def sensitivity_chart(items: Sequence[Sensitivity]) -> str:
    """Return an SVG of bars: error in the hole and time saved of each group alone, and of all together."""
    names = [item.group or "all of the stage" for item in items]
    figure = Figure(figsize=(9, 0.8 + 0.24 * len(items)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(items))
    left.barh(places, [max(item.hole_error, 1e-9) for item in items], color=_INT8)
    left.set_xscale("log")
    left.set_xlabel("mean squared error in the hole against FP32")
    right.barh(places, [item.saved_ms for item in items], color=[_INT8 if i.saved_ms > 0 else _FLOAT for i in items])
    right.set_xlabel("ms saved at batch 1")
    left.set_yticks(places, names, fontsize=7)
    left.invert_yaxis()
    return _svg(figure)


def ranges_chart(ranges: Mapping[str, Range]) -> str:
    """Return an SVG of the range of every tensor, in the order of the graph."""
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots()
    lows, highs = (np.asarray([pair[k] for pair in ranges.values()]) for k in (0, 1))
    axes.bar(np.arange(len(ranges)), highs - lows, bottom=lows, color=_INT8)
    axes.set_yscale("symlog")
    axes.set_xlabel("tensor, in the order of the graph")
    axes.set_ylabel("range")
    axes.axhline(0, color="black", linewidth=0.5)
    return _svg(figure)


def face_rows(
    sessions: Mapping[str, Session], faces: Sequence[Recorded], scores: Sequence[FaceScores]
) -> list[dict[str, Any]]:
    """Return worst, median and best face by PSNR of INT8 against FP32 in the hole, with their pictures."""
    order = sorted((k for k in range(len(scores)) if scores[k].hole_error > 0), key=lambda k: scores[k].hole_psnr)
    if not order:
        return []
    chosen = dict(zip(("worst", "median", "best"), (order[0], order[len(order) // 2], order[-1]), strict=True))
    rows = []
    for title, k in chosen.items():
        face, reference = faces[k].face, compose_face(faces[k], faces[k].tensors[CHAIN_OUTPUT])
        result = compose_face(faces[k], run_from(sessions, faces[k])[CHAIN_OUTPUT])
        masked = face.rgb.copy()
        masked[face.hole] = GREY_LEVEL
        pictures = (masked, reference, result, amplified_difference(result, reference))
        shown = [png_address(encode_photo(picture, ".png", lossy=False)) for picture in pictures]
        rows.append({"title": title, "score": scores[k], "pictures": shown})
    return rows


def amplified_difference(a: Rgb, b: Rgb) -> Rgb:
    """Return the absolute difference × ``AMPLIFICATION``, clipped to [0, 255]."""
    difference: NDArray[Any] = np.abs(a.astype(np.int64) - b) * AMPLIFICATION
    return difference.clip(0, 255).astype(np.uint8)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
