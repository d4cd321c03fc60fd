"""Where a float16 graph stays in float32: data that stand beside the networks they are about.

Each stage has a list of islands. Products of tensors (convolutions and matrix products) belong to none:
they are what float16 makes fast, they add up in float32 in the hardware, and TensorRT-RTX compiles no
float32 matrix product for sm_75. What an operator between two islands computes joins them
(see ``showface.export.float16``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Island:
    """Operators that stay in float32.

    Attributes:
        scope: pattern (fnmatch) of the torch module's name within its stage; the empty name is the stage itself.
        operators: ONNX operators of that module's own ``forward`` that belong to it.
        reason: why.
    """

    scope: str
    operators: tuple[str, ...]
    reason: str


_NORMALISATION = Island("*", ("InstanceNormalization", "BatchNormalization"), "a variance leaves float16's range")
_SOFTMAX = Island("*", ("Softmax",), "a sum of exponentials over up to 1024 entries")

ISLANDS: dict[str, tuple[Island, ...]] = {
    "coarse": (
        _NORMALISATION,
        Island("*.conv", ("AveragePool", "Clip", "Greater", "Reciprocal"), "counts of valid pixels, and their inverse"),
        Island("layout", ("AveragePool", "Sub", "Clip", "Div", "LessOrEqual"), "means of what is known of a pixel"),
        Island("", ("Sub", "Mul", "Add", "Clip"), "known pixels are copied, not rounded"),
    ),
    "parser": (
        Island("parser", ("Mul", "Add", "Sub", "Div"), "the photograph's normalisation"),
        Island("*", ("ReduceMean",), "pooling over the whole image"),
    ),
    "occluder": (
        Island("occluder", ("Mul", "Add", "Sub", "Div"), "the photograph's normalisation"),
        Island("*", ("ReduceMean",), "pooling over the whole image"),
    ),
    "memory": (
        _NORMALISATION,
        _SOFTMAX,
        Island("", ("AveragePool", "Cast", "Sub", "Mul", "ReduceSum", "Clip", "Div"), "regions and their areas"),
        Island("", ("ReduceL2",), "norms of the cosines"),
    ),
    "mrem": (
        _SOFTMAX,
        Island("", ("AveragePool", "Sub", "Mul", "Add"), "fusion by the hole's share of each cell"),
    ),
    "refiner": (
        _NORMALISATION,
        Island("", ("AveragePool", "Mul", "Clip"), "means of cells; known pixels are the coarse face's, not rounded"),
    ),
}
