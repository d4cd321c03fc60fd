"""The whole of ``showface validate``: open both sides, choose what to compare, compare, judge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from showface.runtime.backends import Backend, open_chain
from showface.runtime.backends.chain import Tensors
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError, extra

from ..faces import real_faces
from .cases import Case, array_cases, face_cases, generated_cases
from .compare import ComparisonResult, compare_sources, read_result
from .saved_outputs import OUTPUTS_FILE, SavedSource, open_outputs, save_outputs
from .sources import Source, golden_source, source_of_bundle
from .tolerances import judge, override, plan_tolerances, stored_tolerances

logger = logging.getLogger(__name__)

Keep = Callable[[Case, Tensors, Tensors], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        path: a checkpoint file, a folder of saved outputs, or a bundle; None takes the bundle that ships with the
            package.
        backend: a value of ``Backend`` that runs a bundle.
        device: ``auto``, ``cpu`` or ``cuda:N``, of a bundle.
        cuda_graph: launch the work of engines as CUDA graphs.
    """

    path: Path | None
    backend: str = Backend.AUTO
    device: str = "auto"
    cuda_graph: bool = False

    @property
    def kind(self) -> Literal["checkpoint", "outputs", "bundle"]:
        """What stands at the path."""
        if self.path is not None and self.path.is_file():
            return "checkpoint"
        return "outputs" if self.path is not None and (self.path / OUTPUTS_FILE).is_file() else "bundle"

    def check(self, prefix: str) -> None:
        """Refuse a backend, a device or CUDA graphs where there is no bundle.

        PyTorch runs on the CPU, saved outputs nowhere.

        Raises:
            UsageError: one is given; ``prefix`` stands before the names of their options.
        """
        if self.kind == "bundle":
            return
        if self.backend != Backend.AUTO or self.device not in ("auto", "cpu"):
            raise UsageError(f"backend and device are for a bundle; {self.path} is none", f"{prefix}backend")
        if self.cuda_graph:
            raise UsageError(f"CUDA graphs are for a bundle; {self.path} is none", f"{prefix}cuda_graph")

    def open(self, threads: int | None) -> Source:
        """Open it.

        Raises:
            UsageError: it is none of the three, or cannot be loaded.
        """
        if self.kind == "bundle":
            bundle = open_bundle(self.path)
            return source_of_bundle(bundle, open_chain(bundle, self.backend, self.device, threads, self.cuda_graph))
        assert self.path is not None
        if self.kind == "outputs":
            return open_outputs(self.path)
        with extra("export"):
            from .torch_source import source_of_checkpoint
        return source_of_checkpoint(self.path, threads)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What two sides are compared on.

    Attributes:
        images: a folder of faces; None takes golden inputs.
        masks: their masks.
        limit: stop after so many faces; None takes all.
        max_batch: the largest batch of what is made on purpose; 0 leaves that out.
    """

    images: Path | None = None
    masks: Path | None = None
    limit: int | None = None
    max_batch: int = 8

    @property
    def named(self) -> bool:
        """Whether faces were asked for."""
        return self.images is not None or self.masks is not None or self.limit is not None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What judges: the precision whose row of the table is taken (None: the candidate's own), and changes to it."""

    precision: str | None = None
    changes: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class ValidatedPair:
    """Two open sides and what their comparison found."""

    reference: Source
    candidate: Source
    outcome: ComparisonResult


def validate(
    candidate: Side,
    reference: Side | None = None,
    inputs: Inputs | None = None,
    bounds: Bounds | None = None,
    threads: int | None = None,
    keep: tuple[Path | None, Path | None] = (None, None),
) -> ValidatedPair:
    """Compare a candidate with a reference: each stage alone, then the chain.

    Args:
        candidate: what is to be proved.
        reference: what is right; None takes the golden outputs in the candidate's bundle.
        inputs: by default golden inputs and what is made of them.
        bounds: by default those of the candidate's precision.
        threads: number of CPU threads.
        keep: new folders for the outputs of the reference and of the candidate.

    Raises:
        UsageError: a side cannot be opened, the two cannot be compared, or the inputs do not go with them.
    """
    inputs, bounds = inputs or Inputs(), bounds or Bounds()
    candidate.check("")
    if reference is not None:
        reference.check("reference-")
    source = candidate.open(threads)
    golden: Case | None = None
    if reference is not None:
        origin = reference.open(threads)
    elif candidate.kind == "bundle":
        origin, golden = golden_source(open_bundle(candidate.path))
    else:
        raise UsageError(f"{candidate.path}: has no golden outputs of its own; name a reference that it shall equal")
    logger.info("candidate: %s", source.identity.description)
    logger.info("reference: %s", origin.identity.description)
    if golden is not None and inputs.named:
        raise UsageError(
            "faces of your own need a checkpoint or another reference: only golden inputs have outputs of their own"
        )
    cases = iter([golden]) if golden else _cases(source, origin, inputs)
    tolerances = plan_tolerances(source.identity.precision, bounds.precision, bounds.changes or {})
    with ExitStack() as stack:
        seen = _keeper(stack, ((keep[0], origin), (keep[1], source)))
        return ValidatedPair(origin, source, compare_sources(origin, source, cases, tolerances, seen))


def _cases(source: Source, origin: Source, inputs: Inputs) -> Iterator[Case]:
    """Return the saved cases where a side is saved, else faces and what is made of the first of them."""
    saved = [side for side in (origin, source) if isinstance(side, SavedSource)]
    if saved:
        if inputs.named:
            raise UsageError("saved outputs bring their own inputs; leave out faces, masks and limit")
        if len(saved) == 2 and set(saved[0].entries) != set(saved[1].entries):
            names = sorted(set(saved[0].entries) ^ set(saved[1].entries))
            raise UsageError(f"{saved[0].folder} and {saved[1].folder}: not of the same cases: {', '.join(names[:5])}")
        yield from saved[0].cases()
        return
    size, images, masks = source.identity.image_size, inputs.images, inputs.masks
    if images is None:
        face, hole = real_faces(images, masks, size)
        yield from array_cases(face[: inputs.limit], hole[: inputs.limit], "golden")
        if inputs.max_batch:
            yield from generated_cases(face, hole, inputs.max_batch)
        return
    if masks is None:
        raise UsageError("faces need masks; name them", "images")
    first: list[Case] = []
    for case in face_cases(images, masks, size, inputs.limit):
        if len(first) < inputs.max_batch:
            first.append(case)
        yield case
    if first:
        face, hole = (np.concatenate([case.inputs[name] for case in first]) for name in ("image", "mask"))
        yield from generated_cases(face, hole, inputs.max_batch)


def _keeper(stack: ExitStack, wanted: tuple[tuple[Path | None, Source], ...]) -> Keep:
    """Return the function that keeps both sides' tensors where that was asked for."""
    reference, candidate = (
        None if path is None else stack.enter_context(save_outputs(path, source.identity)) for path, source in wanted
    )

    def keep(case: Case, ours: Tensors, theirs: Tensors) -> None:
        if reference is not None:
            reference.add(case, ours)
        if candidate is not None:
            candidate.add(case, theirs)

    return keep


def judge_again(path: Path, bounds: Bounds) -> dict[str, Any]:
    """Judge the JSON of an earlier comparison by other bounds; nothing is run.

    Raises:
        UsageError: it cannot be read, or there is no such precision.
    """
    result, changes = read_result(path), bounds.changes or {}
    if bounds.precision is not None:
        tolerances = plan_tolerances(result["candidate"]["precision"], bounds.precision, changes)
    else:
        tolerances = {name: override(row, changes) for name, row in stored_tolerances(result).items()}
    judged = judge(result, tolerances)
    if "attribution" in judged:
        failed = {name for name, figures in judged["stages"].items() if not figures["passed"]}
        judged["attribution"] = [found for found in judged["attribution"] if found["stage"] in failed]
    return judged
