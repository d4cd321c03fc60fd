"""Ratios of time, measured in one run: the variants take turns, so that a busy machine slows all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.evaluation.speed.timing import interleave, latency_of, ratio_of
from showface.runtime.backends.chain import Session

from ..recording import Recorded

BATCHES = (1, 8)


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of one batch, before and after.

    Attributes:
        float_ms: best run of the float variant.
        int8_ms: best run of the quantised variant.
        ratio: float time / quantised time, the median over the pairs of neighbouring runs; above 1 is faster.
    """

    float_ms: float
    int8_ms: float
    ratio: float


def compare(before: Callable[[], object], after: Callable[[], object], rounds: int) -> Timing:
    """Time two variants in turns, after one run of each that warms up."""
    seconds = interleave({"float": before, "int8": after}, rounds, warm_up=1)
    ratio = ratio_of(seconds["float"], seconds["int8"]).median
    return Timing(latency_of(seconds["float"]).min_ms, latency_of(seconds["int8"]).min_ms, ratio)


def batch_of(faces: Sequence[Recorded], size: int) -> dict[str, NDArray[Any]]:
    """Return every recorded tensor with a batch of ``size``; faces are repeated to fill it."""
    chosen = [faces[k % len(faces)].tensors for k in range(size)]
    return {name: np.concatenate([tensors[name] for tensors in chosen]) for name in chosen[0]}


def compare_sessions(before: Session, after: Session, tensors: Mapping[str, NDArray[Any]], rounds: int) -> Timing:
    """Time two sessions of one stage on the same recorded ``tensors``."""
    return compare(_runner(before, tensors), _runner(after, tensors), rounds)


def _runner(session: Session, tensors: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    inputs = {name: tensors[name] for name in session.stage.inputs}
    return lambda: session.run(inputs)


def compare_stages(
    before: Mapping[str, Session], after: Mapping[str, Session], faces: Sequence[Recorded], batch: int, rounds: int
) -> dict[str, Timing]:
    """Time each stage whose session differs, on the recorded inputs, and the ``chain`` of all stages.

    The chain's time is that of the same sessions run one after the other on recorded inputs: the fold
    between them costs nothing.
    """
    tensors = batch_of(faces, batch)
    timings = {
        name: compare_sessions(session, after[name], tensors, rounds)
        for name, session in before.items()
        if after[name] is not session
    }
    first, second = ([_runner(session, tensors) for session in variant.values()] for variant in (before, after))
    timings["chain"] = compare(lambda: [run() for run in first], lambda: [run() for run in second], rounds)
    return timings
