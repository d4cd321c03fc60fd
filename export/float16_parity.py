"""Does the float16 bundle compute what the float32 one does? *Graph parity*: both run in ONNX Runtime on the CPU.

ONNX Runtime computes many float16 operators in float32 there, so that a device may differ by more; what this
proves is the graph: the casts, the islands, the rounded weights, and that nothing leaves float16's range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.evaluation.parity.stats import hole_figures
from showface.evaluation.parity.tolerances import TOLERANCES
from showface.runtime.backends.chain import Chain
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT

BOUNDS = TOLERANCES["float16"]  # of the worst face; 50 dB is a root mean square of 0.8 grey values
BATCH = 4

Faces = tuple[NDArray[np.float32], NDArray[np.float32]]
Errors = dict[str, list[NDArray[Any]]]


def float16_parity(reference: Chain, candidate: Chain, faces: Faces) -> dict[str, Any]:
    """Compare two chains on real faces: each stage on the reference's inputs, and the result of the whole chain.

    Args:
        reference: the float32 chain.
        candidate: the float16 chain.
        faces: image [N, 3, H, W] and mask [N, 1, H, W].

    Returns:
        ``{"passed", "stages": {name: {"max_abs", "p99_abs", "agreement", "finite"}}, "chain": {"psnr_mean",
        "psnr_worst", "finite"}}``; PSNR in dB over the pixels of the hole, faces without a hole left out.
    """
    sessions = [*candidate.sessions, *([] if candidate.occluder is None else [candidate.occluder])]
    errors: Errors = {session.stage.name: [] for session in sessions}
    agreement = dict.fromkeys(errors, 1.0)
    finite = dict.fromkeys((*errors, "chain"), True)
    psnr: list[float] = []
    for image, mask in _batches(faces):
        truth = reference.run(dict(zip(CHAIN_INPUTS, (image, mask), strict=True)))
        if reference.occluder is not None:
            truth.update(reference.occluder.run({key: truth[key] for key in reference.occluder.stage.inputs}))
        for session in sessions:
            name = session.stage.name
            outputs = session.run({key: truth[key] for key in session.stage.inputs})
            for key, value in outputs.items():
                if np.issubdtype(value.dtype, np.integer):
                    equal = (value == truth[key]).reshape(len(value), -1).mean(axis=1)
                    agreement[name] = min(agreement[name], float(equal.min()))
                    continue
                finite[name] &= bool(np.isfinite(value).all())
                errors[name].append(np.abs(value - truth[key]).ravel().astype(np.float32))
        own = candidate.complete(image, mask)
        finite["chain"] &= bool(np.isfinite(own).all())
        psnr += [hole_figures(*face)[0] for face in zip(truth[CHAIN_OUTPUT], own, mask, strict=True) if face[2].any()]
    stages = {name: {**_figures(errors[name]), "agreement": agreement[name], "finite": finite[name]} for name in errors}
    worst = min(psnr, default=float("inf"))
    mean = float(np.mean(psnr)) if psnr else float("inf")
    passed = all(finite.values()) and worst >= BOUNDS.min_psnr_db
    passed = passed and min(agreement.values()) >= BOUNDS.min_agreement
    passed = passed and all(
        stage["max_abs"] <= BOUNDS.max_abs and stage["p99_abs"] <= BOUNDS.p99_abs for stage in stages.values()
    )
    chain = {"psnr_mean": mean, "psnr_worst": worst, "finite": finite["chain"]}
    return {"passed": bool(passed), "faces": len(faces[0]), "stages": stages, "chain": chain}


def _batches(faces: Faces) -> Iterator[Faces]:
    for start in range(0, len(faces[0]), BATCH):
        yield faces[0][start : start + BATCH], faces[1][start : start + BATCH]


def _figures(errors: list[NDArray[Any]]) -> dict[str, float]:
    if not errors:
        return {"max_abs": 0.0, "p99_abs": 0.0}
    joined = np.concatenate(errors)
    return {"max_abs": float(joined.max()), "p99_abs": float(np.quantile(joined, 0.99))}
