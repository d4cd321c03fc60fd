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


def timing_of(before: Sequence[float], after: Sequence[float]) -> Timing:
    """Return what the seconds of pairs of runs say."""
    return Timing(latency_of(before).min_ms, latency_of(after).min_ms, ratio_of(before, after).median)


def batch_of(faces: Sequence[Recorded], size: int) -> dict[str, NDArray[Any]]:
    """Return every recorded tensor with a batch of ``size``; faces are repeated to fill it."""
    chosen = [faces[k % len(faces)].tensors for k in range(size)]
    return {name: np.concatenate([tensors[name] for tensors in chosen]) for name in chosen[0]}


def compare_sessions(before: Session, after: Session, tensors: Mapping[str, NDArray[Any]], rounds: int) -> Timing:
    """Time two sessions of one stage in turns on the same recorded ``tensors``."""
    tasks = {"float": _runner(before, tensors), "int8": _runner(after, tensors)}
    seconds = interleave(tasks, rounds, warm_up=0, settle=0.0)  # they have run on faces, if not both
    return timing_of(seconds["float"], seconds["int8"])


def _runner(session: Session, tensors: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    inputs = {name: tensors[name] for name in session.stage.inputs}
    return lambda: session.run(inputs)


def compare_stages(
    before: Mapping[str, Session], after: Mapping[str, Session], faces: Sequence[Recorded], batch: int, rounds: int
) -> dict[str, Timing]:
    """Time each stage whose session differs, on the recorded inputs, and the ``chain`` of all stages.

    The chain's time is the sum of its stages': the fold between them costs nothing.
    """
    tensors = batch_of(faces, batch)
    variants = {"float": before, "int8": after}
    tasks = {
        f"{variant} {name}": _runner(session, tensors)
        for variant, sessions in variants.items()
        for name, session in sessions.items()
    }
    seconds = interleave(tasks, rounds, warm_up=1, settle=0.0)
    pairs = {name: tuple(seconds[f"{variant} {name}"] for variant in variants) for name in before}
    timings = {name: timing_of(*pair) for name, pair in pairs.items() if after[name] is not before[name]}
    sums = ([sum(row) for row in zip(*(pair[k] for pair in pairs.values()), strict=True)] for k in range(2))
    return {**timings, "chain": timing_of(*sums)}
