"""The benchmark: latency and throughput of each subject, end to end, by stage and by phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from showface.runtime.backends.chain import Chain, Tensors
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.images.codec import decode_photo, encode_photo
from showface.runtime.stages import CHAIN_INPUTS, Stage

from .subjects import Array, Subject
from .timing import figures, interleave, latency_of, ratio_of


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
        bringing every stage's outputs to the host adds to the production path; ``ratios`` of the chain's time
        over the first subject's; ``yardstick`` latency.
    """
    chosen = [k % len(faces["image"]) for k in range(batch)]
    image, mask = (np.ascontiguousarray(faces[name][chosen]) for name in CHAIN_INPUTS)
    tensors = chain.run({"image": image, "mask": mask})
    tasks = {s.name: _complete(s, image, mask) for s in subjects}
    if yardstick is not None:
        tasks[yardstick[0]] = yardstick[1]
    whole = interleave(tasks, plan.rounds, plan.warm_up)
    by_stage = {
        stage.name: interleave({s.name: _stage(s, stage, tensors) for s in subjects}, plan.rounds, plan.warm_up)
        for stage in stages
    }
    rows = []
    for subject in subjects:
        latency = latency_of(whole[subject.name])
        parts = {name: latency_of(seconds[subject.name]) for name, seconds in by_stage.items()}
        rows.append(
            {
                "subject": subject.name,
                "batch": batch,
                "chain": figures(latency),
                "faces_per_second": batch * 1e3 / latency.p50_ms,
                "stages": {name: figures(part) for name, part in parts.items()},
                "copies_ms": sum(parts[s.stage.name].p50_ms for s in chain.sessions) - latency.p50_ms,
            }
        )
    first = subjects[0].name
    return {
        "batch": batch,
        "subjects": rows,
        "ratios": {s.name: figures(ratio_of(whole[s.name], whole[first])) for s in subjects[1:]},
        "yardstick": None if yardstick is None else figures(latency_of(whole[yardstick[0]])),
    }


def measure_phases(subject: Subject, faces: Tensors, stages: Sequence[Stage], chain: Chain, plan: Schedule) -> Any:
    """Time what a face of the networks' size goes through, in milliseconds: file to pixels to file.

    Returns:
        Latency of ``decode`` (PNG), ``pre``, each stage, ``post`` and ``encode`` (PNG) alone, and of all in one call
        (``end to end``), at batch 1.
    """
    pixels = np.rint((faces["image"][0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    hole = faces["mask"][0, 0] > 0
    data = encode_photo(pixels, ".png", lossy=False)
    image, mask = prepare(pixels, hole, len(hole), "face")
    tensors = chain.run({"image": image[None], "mask": mask[None]})
    completed = subject.complete(image[None], mask[None])[0]

    def end_to_end() -> bytes:
        face = decode_photo(data, "face.png").pixels
        blanked, known = prepare(face, hole, len(hole), "face")
        result = subject.complete(blanked[None], known[None])[0]
        return encode_photo(composite(face, hole, result), ".png", lossy=False)

    tasks: dict[str, Callable[[], Any]] = {
        "decode": lambda: decode_photo(data, "face.png"),
        "pre": lambda: prepare(pixels, hole, len(hole), "face"),
        **{stage.name: _stage(subject, stage, tensors) for stage in stages},
        "post": lambda: composite(pixels, hole, completed),
        "encode": lambda: encode_photo(pixels, ".png", lossy=False),
        "end to end": end_to_end,
    }
    return {name: figures(latency_of(s)) for name, s in interleave(tasks, plan.rounds, plan.warm_up).items()}


def _complete(subject: Subject, image: Array, mask: Array) -> Callable[[], Any]:
    return lambda: subject.complete(image, mask)


def _stage(subject: Subject, stage: Stage, tensors: Mapping[str, Array]) -> Callable[[], Any]:
    return lambda: subject.stage(stage, tensors)
