"""Pictures of what the stages compute."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.codec import Pixels, encode_photo
from ..stages import CATEGORIES, TENSORS, Stage

COLORS = np.asarray(
    [
        (30, 30, 36), (233, 185, 152), (199, 132, 96), (20, 160, 190), (70, 130, 230), (96, 62, 40), (230, 140, 120),
        (120, 20, 40), (214, 70, 90), (170, 40, 70), (120, 84, 50), (150, 90, 200), (205, 150, 120), (80, 150, 90),
    ],
    np.uint8,
)  # fmt: skip


def picture_of(name: str, value: NDArray[Any]) -> Pixels | None:
    """Return one face's tensor, without the batch, as an RGB picture (H, W, 3); None where it is no map of the face."""
    shape = TENSORS[name].shape[1:]
    if shape == (3, "H", "H"):
        return _bytes((value.transpose(1, 2, 0) + 1.0) / 2.0)
    if TENSORS[name].dtype == "int32":
        return np.asarray(COLORS[value])
    if shape == ("c", "h", "h"):
        return _principal(value)
    return None


def stage_pictures(stages: Iterable[Stage], tensors: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what ``/stages`` answers: a picture of each output, as a data URI, and the categories' colours.

    The tensors are those of one face, with a batch of one.
    """
    pictures = []
    for stage in stages:
        for name in stage.outputs:
            picture = picture_of(name, tensors[name][0])
            if picture is not None:
                data = base64.b64encode(encode_photo(picture, ".png", lossy=False)).decode()
                entry = {"stage": stage.name, "tensor": name, "description": TENSORS[name].description}
                pictures.append({**entry, "picture": f"data:image/png;base64,{data}"})
    colors = ("#{:02x}{:02x}{:02x}".format(*color) for color in COLORS.tolist())
    names = [{"name": name, "color": color} for name, color in zip(CATEGORIES, colors, strict=True)]
    return {"stages": pictures, "categories": names}


def _bytes(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.rint(values * 255.0).clip(0, 255), np.uint8)


def _principal(value: NDArray[Any]) -> Pixels:
    """Show features [c, h, w] by their three principal components, each stretched to its 1st to 99th percentile."""
    flat = value.reshape(len(value), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    axes = np.linalg.eigh(flat @ flat.T)[1][:, :-4:-1]
    axes *= np.where(axes.sum(axis=0) < 0, -1.0, 1.0)  # a component's sign is arbitrary; equal faces look equal
    scores = axes.T @ flat
    low, high = np.percentile(scores, (1, 99), axis=1, keepdims=True)
    return _bytes(((scores - low) / np.maximum(high - low, 1e-12)).T.reshape(*value.shape[1:], -1))
