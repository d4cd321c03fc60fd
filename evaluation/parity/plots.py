"""The pictures of a report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from showface.runtime.images.codec import Pixels, encode_photo

from .accumulate import ComparedPicture
from .stats import ERROR_EDGES

INK, SERIES = "#334155", ("#c2410c", "#0369a1", "#64748b")
FLOOR = 1e-10  # on a logarithmic axis: what equals the reference is drawn here


def growth_plot(result: Mapping[str, Any]) -> bytes:
    """Draw the error of every float tensor: what its stage adds, and what has gathered along the chain."""
    chained = {name: row for name, row in result["chain"]["tensors"].items() if row["kind"] == "float"}
    alone = {name: row for stage in result["stages"].values() for name, row in stage["tensors"].items()}
    names = list(chained)
    figure, axes = _figure()
    for values, label, colour, style in (
        ([chained[name]["max_abs"] for name in names], "chain, largest", SERIES[0], "o-"),
        ([chained[name]["p99_abs"] for name in names], "chain, 99th percentile", SERIES[2], "o--"),
        ([alone.get(name, {}).get("max_abs") for name in names], "stage alone, largest", SERIES[1], "s:"),
    ):
        points = [(k, max(value, FLOOR)) for k, value in enumerate(values) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, color=colour, markersize=4)
    axes.axhline(result["tolerances"]["chain"]["max_abs"], color=INK, linewidth=0.8, label="allowed in the chain")
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes.set_ylabel("absolute error")
    axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def histogram_plot(result: Mapping[str, Any]) -> bytes:
    """Draw how the absolute errors of the chain's float tensors are spread, as shares of each tensor."""
    figure, axes = _figure()
    centres = np.sqrt(ERROR_EDGES[1:] * ERROR_EDGES[:-1])
    for name, row in result["chain"]["tensors"].items():
        if row["kind"] == "float" and sum(row["histogram"]):
            counts = np.asarray(row["histogram"], np.float64)
            axes.step(centres, counts / counts.sum(), where="mid", label=name, linewidth=1.2)
    axes.axvline(result["tolerances"]["chain"]["max_abs"], color=INK, linewidth=0.8, label="allowed")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("absolute error")
    axes.set_ylabel("share of values")
    axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def picture_parts(picture: ComparedPicture) -> tuple[dict[str, bytes], float]:
    """Return input, reference, candidate and difference as PNG, and by how much the difference is amplified.

    The hole is grey in the input; the largest difference of any channel is white, and so is what is not finite.
    """
    difference = np.abs(picture.candidate.astype(np.float64) - picture.reference).max(axis=0)
    largest = float(difference[np.isfinite(difference)].max(initial=0.0))
    gain = 2.0 / largest if largest else 1.0
    shown = np.where(np.isfinite(difference), difference * gain - 1.0, 1.0)
    parts = {
        "input": np.where(picture.mask > 0, 0.0, picture.image),
        "reference": picture.reference,
        "candidate": picture.candidate,
        "difference": np.repeat(shown[None], 3, axis=0),
    }
    return {name: encode_photo(_pixels(part), ".png", lossy=False) for name, part in parts.items()}, gain


def _pixels(image: Any) -> Pixels:
    values = np.nan_to_num(np.asarray(image, np.float64), nan=1.0, posinf=1.0, neginf=-1.0)
    return np.asarray(np.rint((values.transpose(1, 2, 0) + 1.0) * 127.5).clip(0, 255).astype(np.uint8))


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=7, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.6)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()
