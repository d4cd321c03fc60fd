"""The whole of ``showface benchmark``: load the subjects, time them in turn, and put the figures into one document."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showface.runtime.backends import Backend, open_chain
from showface.runtime.backends.processors import processors
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError, extra

from ..parity.sources import environment_of
from .fresh_process import measure_fresh
from .kernels import kernel_times
from .measure import Schedule, measure_batch, measure_phases
from .subjects import ChainSubject, Subject
from .timing import pin
from .verdict import keep_verdict

logger = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle to time.

    Attributes:
        folder: None takes the one that ships.
        backend: a value of ``Backend``.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        cuda_graph: launch the work of engines as CUDA graphs.
    """

    folder: Path | None
    backend: str = Backend.AUTO
    device: str = "auto"
    cuda_graph: bool = False

    def open(self, name: str, threads: int) -> ChainSubject:
        """Load it under a short name."""
        opened = open_bundle(self.folder)
        return ChainSubject(name, opened, open_chain(opened, self.backend, self.device, threads, self.cuda_graph))


def run_benchmark(
    first: Candidate,
    against: Candidate | None,
    checkpoint: Path | None,
    plan: Schedule,
    threads: int | None = None,
    compiled: bool = False,
    kernels: bool = False,
    fresh: bool = True,
) -> dict[str, Any]:
    """Time a bundle, in turn with another one and with PyTorch, so that their ratios hold.

    Others are compared with ``first``: ``against``, another bundle, backend or device of the same variant and image
    size, and PyTorch, which runs the bundle's weights of ``checkpoint``: eagerly, and with ``compiled`` by
    ``torch.compile`` too. With ``kernels`` ONNX Runtime's kernels of each stage are timed; with ``fresh`` start, load
    and memory are measured in processes of their own.

    Returns:
        The document of figures: environment, plan, subjects, latencies by batch, phases of a face by bundle,
        fresh processes, FLOP and kernels; under ``int8`` what the manifest of an INT8 bundle says from now on.

    Raises:
        UsageError: a bundle or the checkpoint cannot be loaded, or they do not belong together.
    """
    threads = threads or processors()
    pin(threads)
    bundle = first.open("bundle", threads)
    timed = [(bundle, first)]
    if against is not None:
        timed.append((_open_against(against, bundle, threads), against))
    if kernels:
        for stage in bundle.bundle.manifest.stages:
            bundle.bundle.model(stage)  # a kit without graphs is refused now and not after the timing
    subjects: list[Subject] = [subject for subject, _ in timed]
    flops: dict[str, float] = {}
    yardstick, gflop = None, 0.0
    if checkpoint is not None:
        with extra("export"):
            from .torch_subject import MATMUL_GFLOP, matmul_task, torch_subjects
        torch_ones, flops, weights = torch_subjects(checkpoint, compiled, threads)
        if weights != bundle.bundle.manifest.checkpoint_sha256:
            raise UsageError(
                f"{checkpoint}: {bundle.bundle.folder} was exported from other weights; export it from this file, "
                "or give the checkpoint that it came from"
            )
        subjects += torch_ones
        yardstick, gflop = ("matmul", matmul_task()), MATMUL_GFLOP
    # The occluder is timed like a stage where every subject has one: PyTorch's chain has none.
    with_occluder = checkpoint is None and all(subject.chain.occluder is not None for subject, _ in timed)
    manifest, faces = bundle.bundle.manifest, bundle.bundle.golden()
    stages = manifest.graphs if with_occluder else manifest.stages
    for subject in subjects:
        logger.info("%s: %s", subject.name, subject.description)
    measured = []
    for size in plan.batches:
        logger.info("batch %d …", size)
        measured.append(measure_batch(subjects, stages, bundle.chain, faces, size, plan, yardstick))
    tensors = bundle.chain.run({name: faces[name][:1] for name in ("image", "mask")})
    verdict = None
    if against is not None:
        verdict = keep_verdict([(subject, candidate.device) for subject, candidate in timed], measured)
    return {
        "schema_version": SCHEMA,
        "environment": environment_of(bundle.chain.description),
        "threads": threads,
        "plan": asdict(plan),
        "subjects": {subject.name: subject.description for subject in subjects},
        "batches": measured,
        "int8": verdict,
        "phases": {
            subject.name: measure_phases(subject, faces, () if subject.on_device else manifest.stages, plan)
            for subject, _ in timed
        },
        "fresh": _fresh(timed, plan, threads) if fresh else {},
        "flops": flops,
        "matmul_gflops": gflop / measured[0]["yardstick"]["p50_ms"] * 1e3 if yardstick is not None else None,
        "kernels": kernel_times(bundle.bundle, tensors, threads) if kernels else {},
    }


def _open_against(against: Candidate, bundle: ChainSubject, threads: int) -> ChainSubject:
    """Load the other bundle and refuse one that computes something else."""
    subject = against.open("against", threads)
    given, wanted = ((s.bundle.manifest.variant, s.bundle.manifest.image_size) for s in (subject, bundle))
    if given != wanted:
        raise UsageError(f"{against.folder}: {given} is another variant or image size than {wanted}", "against")
    return subject


def _fresh(timed: Sequence[tuple[ChainSubject, Candidate]], plan: Schedule, threads: int) -> dict[str, Any]:
    return {
        f"{subject.name}, batch {size}": measure_fresh(
            subject.bundle.folder, candidate.backend, candidate.device, threads, size
        )
        for subject, candidate in timed
        for size in plan.batches
    }
