"""The CPU form of one float graph; the bundle's graph stays the one source."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from .constants import fix_scales, fold_casts
from .convolutions import convolve_rows, convolve_shuffled
from .elu import clip_elu
from .partial import ready_partial_convolutions
from .subpixel import convolve_small, split_joined_inputs


def cpu_form(data: bytes) -> ModelProto:
    """Return a float32 graph that computes the same as ``data``, up to the order of its sums, and faster on a CPU."""
    model = onnx.load_model_from_string(data)
    fold_casts(model)
    fix_scales(model)
    ready_partial_convolutions(model)
    split_joined_inputs(model)
    convolve_small(model)
    convolve_shuffled(model)
    convolve_rows(model)
    clip_elu(model)
    return model
