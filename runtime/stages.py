"""The stage table: the one source of truth for the tensors that pass between the stages.

Export, engines, calibration, runtime, parity and benchmarks read this table; none of them repeats
a tensor name. Tensors are matched by name, so the chain is a fold over the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CATEGORIES = (
    "background", "skin", "nose", "eyeglasses", "eye", "brow", "ear",
    "mouth", "upper_lip", "lower_lip", "hair", "hat", "neck", "cloth",
)  # fmt: skip

DType = Literal["float32", "int32"]
# A symbolic dimension: B is the batch (the only dynamic axis), H the image side, h = H / 4 the side
# of the features, n the number of categories, c that of the code channels.
Dimension = int | Literal["B", "H", "h", "n", "c"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the chain."""

    name: str
    dtype: DType
    shape: tuple[Dimension, ...]
    description: str

    def resolve(self, batch: int, image_size: int, channels: int) -> tuple[int, ...]:
        """Return the concrete shape for a batch, an image side and a number of code channels.

        >>> TENSORS["guidance"].resolve(2, 256, 64)
        (2, 64, 64, 64)
        """
        known = {"B": batch, "H": image_size, "h": image_size // 4, "n": len(CATEGORIES), "c": channels}
        return tuple(d if isinstance(d, int) else known[d] for d in self.shape)


@dataclass(frozen=True, slots=True)
class Stage:
    """One network of the chain with the names of its inputs and outputs."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


TENSORS = {
    t.name: t
    for t in (
        Tensor("image", "float32", ("B", 3, "H", "H"), "RGB in [-1, 1]; what lies in the hole is ignored"),
        Tensor("mask", "float32", ("B", 1, "H", "H"), "1 = hole, 0 = known"),
        Tensor("coarse_image", "float32", ("B", 3, "H", "H"), "the paper's P in [-1, 1], known pixels copied"),
        Tensor("semantic_map", "int32", ("B", "H", "H"), "the paper's S, index into CATEGORIES"),
        Tensor("memory_codes", "float32", ("B", "n", "c"), "the paper's Q̂, read from the memory"),
        Tensor("known_codes", "float32", ("B", "n", "c"), "the paper's V, pooled over known pixels"),
        Tensor("guidance", "float32", ("B", "c", "h", "h"), "what steers the refiner"),
        Tensor("completed_image", "float32", ("B", 3, "H", "H"), "RGB in [-1, 1], known pixels copied"),
        Tensor("occlusion", "float32", ("B", 1, "H", "H"), "probability that something covers the head there"),
    )
}

_COARSE = Stage("coarse", ("image", "mask"), ("coarse_image",))
_PARSER = Stage("parser", ("coarse_image",), ("semantic_map",))
_MEMORY = Stage("memory", ("coarse_image", "semantic_map", "mask"), ("memory_codes", "known_codes"))
_MREM = Stage("mrem", ("memory_codes", "known_codes", "semantic_map", "mask"), ("guidance",))
_REFINER = Stage("refiner", ("coarse_image", "mask", "guidance"), ("completed_image",))
_STYLE_ONLY = Stage("memory", ("coarse_image",), ("guidance",))

STAGES = (_COARSE, _PARSER, _MEMORY, _MREM, _REFINER)

# The paper's ablations. In `no-mrem` the stage `mrem` is the fusion alone; in `no-memory` the style
# features are the guidance, so that neither codes nor labels are needed downstream.
VARIANTS = {
    "full": STAGES,
    "non-disentangled": STAGES,
    "no-mrem": STAGES,
    "no-memory": (_COARSE, _PARSER, _STYLE_ONLY, _REFINER),
}

# Beside the chain, and not in every bundle: it sees the whole face and finds what the chain is to complete.
OCCLUDER = Stage("occluder", ("image",), ("occlusion",))

CHAIN_INPUTS = ("image", "mask")
CHAIN_OUTPUT = "completed_image"
COARSE_IMAGE = "coarse_image"
CODES = ("memory_codes", "known_codes", "guidance")  # what stands behind the normalisations of the memory
LABELS = "semantic_map"
SEMANTIC_MARGIN = "semantic_margin"  # [B, H, W], the parser's lead of the best label over the second best; of no stage


def graphs_of(variant: str, names: Iterable[str]) -> tuple[Stage, ...]:
    """Return the stages of a variant in order, and the occluder after them where ``names`` holds its name."""
    return (*VARIANTS[variant], OCCLUDER) if OCCLUDER.name in names else VARIANTS[variant]


def mismatch(found: Mapping[str, tuple[str, Sequence[int | str | None]]], sizes: Mapping[str, int]) -> str | None:
    """Return how tensors differ from the table, in words; None where they agree.

    Equal symbols stand for equal sizes: the sides of all tensors that are compared together have to fit each other.

    Args:
        found: dtype and shape by name; a size that is no number is not known and fits any.
        sizes: of the symbols ``B``, ``H`` and ``c`` that are known.

    >>> mismatch({"mask": ("float32", (2, 1, 256, 128))}, {"B": 2})
    'mask is float32 (2, 1, 256, 128), not float32 (B = 2, 1, H = 256, H = 256)'
    """
    known: dict[Any, int] = {"n": len(CATEGORIES), **sizes}
    for name, (dtype, shape) in found.items():
        tensor = TENSORS[name]
        for symbol, size in zip(tensor.shape, shape, strict=False):
            if isinstance(symbol, str) and isinstance(size, int):
                known.setdefault(symbol, known["H"] // 4 if symbol == "h" and "H" in known else size)
        wanted = [known.get(symbol, symbol) for symbol in tensor.shape]
        same = len(shape) == len(wanted) and all(
            have == want or not (isinstance(have, int) and isinstance(want, int))
            for have, want in zip(shape, wanted, strict=True)
        )
        if dtype != tensor.dtype or not same:
            named = (f"{s} = {known[s]}" if isinstance(s, str) and s in known else str(s) for s in tensor.shape)
            return f"{name} is {dtype} ({', '.join(map(str, shape))}), not {tensor.dtype} ({', '.join(named)})"
    return None
