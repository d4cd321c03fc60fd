"""The benchmark: latency and throughput of each subject, end to end, by stage and by phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from showface.runtime.backends.chain import Chain, Tensors
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.images.codec import decode_photo, encode_photo
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, Stage

from .subjects import Subject
from .timing import interleave, latency_of, ratio_of


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a benchmark runs.

    Attributes:
        batches: sizes to measure.
        rounds: runs of each subject on the clock, in turn.
        warm_up: runs of each before.
    """

    batches: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 20
    warm_up: int = 3


def measure_batch(
    subjects: Sequence[Subject],
    stages: Sequence[Stage],
    chain: Chain,
    faces: Tensors,
    batch: int,
    plan: Schedule,
    yardstick: tuple[str, Callable[[], Any]] | None = None,
) -> dict[str, Any]:
    """Time the chain and every stage of all subjects at one batch size.

    Args:
        subjects: the first is what the others are compared with.
        stages: stages of the bundle.
        chain: chain that makes the inputs of the stages.
        faces: ``image`` [N, 3, H, W] and ``mask`` [N, 1, H, W]; repeated to fill the batch.
        batch: B.
        plan: how often.
        yardstick: name and task of something to time in the same rounds, such as a matrix product.

    Returns:
        For each subject ``chain`` latency, ``faces_per_second``, ``stages`` latencies and ``copies_ms``: what
        bringing every stage's outputs to the host adds to the production path, None where that does so too, or where
        it is less than the times vary; ``ratios`` of the chain's time over the first subject's; ``yardstick`` latency.
    """
    chosen = [k % len(faces["image"]) for k in range(batch)]
    image, mask = (np.ascontiguousarray(faces[name][chosen]) for name in CHAIN_INPUTS)
    tensors = chain.run({"image": image, "mask": mask})
    tasks: dict[str, Callable[[], Any]] = {s.name: partial(s.complete, image, mask) for s in subjects}
    if yardstick is not None:
        tasks[yardstick[0]] = yardstick[1]
    whole = interleave(tasks, plan.rounds, plan.warm_up)
    by_stage = {
        stage.name: interleave({s.name: partial(s.stage, stage, tensors) for s in subjects}, plan.rounds, plan.warm_up)
        for stage in stages
    }
    rows = []
    for subject in subjects:
        latency = latency_of(whole[subject.name])
        parts = {name: latency_of(seconds[subject.name]) for name, seconds in by_stage.items()}
        copies = sum(parts[s.stage.name].p50_ms for s in chain.sessions) - latency.p50_ms
        rows.append(
            {
                "subject": subject.name,
                "batch": batch,
                "chain": asdict(latency),
                "faces_per_second": batch * 1e3 / latency.p50_ms,
                "stages": {name: asdict(part) for name, part in parts.items()},
                "copies_ms": copies if subject.on_device and copies > 0 else None,
            }
        )
    first = subjects[0].name
    return {
        "batch": batch,
        "subjects": rows,
        "ratios": {s.name: asdict(ratio_of(whole[s.name], whole[first])) for s in subjects[1:]},
        "yardstick": None if yardstick is None else asdict(latency_of(whole[yardstick[0]])),
    }


def measure_phases(subject: Subject, faces: Tensors, stages: Sequence[Stage], plan: Schedule) -> dict[str, float]:
    """Time what a face of the networks' size goes through, in milliseconds: file to pixels to file.

    The clock is read between the phases of one and the same call, so that they add up to it.

    Args:
        subject: what completes the face.
        faces: ``image`` [N, 3, H, W] and ``mask`` [N, 1, H, W]; the first is taken.
        stages: of the chain, in order, where it runs them one after the other; none where its device takes it whole.
        plan: how often.

    Returns:
        ``decode`` (PNG), ``pre``, each stage or ``chain``, ``post``, ``encode`` (PNG), and ``end to end``, their sum:
        means over the middle half of the calls by what these took as a whole.
    """
    pixels = np.rint((faces["image"][0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    hole = faces["mask"][0, 0] > 0
    data = encode_photo(pixels, ".png", lossy=False)

    def end_to_end() -> list[tuple[str, float]]:
        marks = [("", time.perf_counter())]

        def mark(name: str) -> None:
            marks.append((name, time.perf_counter()))

        face = decode_photo(data, "face.png").pixels
        mark("decode")
        image, mask = prepare(face, hole, len(hole), "face")
        mark("pre")
        tensors = dict(zip(CHAIN_INPUTS, (image[None], mask[None]), strict=True))
        for stage in stages:
            tensors.update(subject.stage(stage, tensors))
            mark(stage.name)
        if not stages:
            tensors[CHAIN_OUTPUT] = subject.complete(*tensors.values())
            mark("chain")
        result = composite(face, hole, tensors[CHAIN_OUTPUT][0])
        mark("post")
        encode_photo(result, ".png", lossy=False)
        mark("encode")
        return [(name, now - before) for (_, before), (name, now) in pairwise(marks)]

    runs = [end_to_end() for _ in range(plan.warm_up + plan.rounds)][plan.warm_up :]
    runs.sort(key=lambda run: sum(seconds for _, seconds in run))
    middle = runs[len(runs) // 4 : len(runs) - len(runs) // 4]
    means = {name: 1e3 * float(np.mean([run[k][1] for run in middle])) for k, (name, _) in enumerate(middle[0])}
    return {**means, "end to end": sum(means.values())}
