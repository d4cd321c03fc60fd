"""What an export has to prove before it gets its name: that the bundle computes what it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from showface.evaluation.faces import FacePairs
from showface.evaluation.parity.cases import Case, array_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import ChainSource, Source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.runtime.backends.chain import Tensors
from showface.runtime.backends.onnxruntime import open_chain, session_options
from showface.runtime.bundle import Bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import CHAIN_INPUTS, LABELS, SEMANTIC_MARGIN, Stage

PARITY_BATCHES = (1, 2, 8)


def bundle_parity(bundle: Bundle, reference: Source, faces: FacePairs, threads: int | None = None) -> dict[str, Any]:
    """Compare a bundle in ONNX Runtime on the CPU with ``reference``, by the tolerances of its precisions.

    The faces go in batches of 1, 2 and 8, repeated to fill a batch; further ones go alone.
    """
    candidate = source_of_bundle(bundle, open_chain(bundle, "cpu", threads))
    tolerances = plan_tolerances(candidate.identity.precision, None, {})
    return compare_sources(reference, candidate, _cases(*faces), tolerances).result


@dataclass(frozen=True, slots=True)
class ScoredSource(ChainSource):
    """A bundle as a reference that tells by which lead each label was found, as PyTorch does."""

    parser: Stage
    scores: ort.InferenceSession

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """Return every tensor of the chain, and the margin."""
        tensors = ChainSource.chain(self, case, given)
        return {**tensors, SEMANTIC_MARGIN: self._margin(tensors)}

    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """Run one stage alone; the parser gives its margin too."""
        outputs = ChainSource.stage(self, stage, inputs)
        return {**outputs, SEMANTIC_MARGIN: self._margin(inputs)} if LABELS in stage.outputs else outputs

    def _margin(self, tensors: Tensors) -> NDArray[np.float32]:
        """Return the lead of the best label over the second best, [B, H, W]."""
        (scores,) = self.scores.run(None, {name: tensors[name] for name in self.parser.inputs})
        second, best = np.moveaxis(np.partition(scores, -2, axis=1)[:, -2:], 1, 0)
        lead: NDArray[np.float32] = best - second
        return lead


def scored_source(bundle: Bundle, threads: int | None = None) -> ScoredSource:
    """Return a bundle in ONNX Runtime on the CPU, with the scores that its parser takes the best of.

    Raises:
        UsageError: the parser's graph takes no best of scores.
    """
    parser = next(stage for stage in bundle.manifest.stages if LABELS in stage.outputs)
    proto = onnx.load_model_from_string(bundle.model(parser))
    chosen = [node for node in proto.graph.node if node.op_type == "ArgMax"]
    if not chosen:
        raise UsageError(f"{bundle.folder}: stage {parser.name} has no ArgMax; export the bundle again")
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=chosen[-1].input[0]))
    data, options = proto.SerializeToString(), session_options(threads)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    source = source_of_bundle(bundle, open_chain(bundle, "cpu", threads))
    return ScoredSource(source.loaded, source.identity, parser, session)


def _cases(image: NDArray[np.float32], mask: NDArray[np.float32]) -> Iterator[Case]:
    for batch in PARITY_BATCHES:
        chosen = [k % len(image) for k in range(batch)]
        yield Case(f"batch-{batch}", dict(zip(CHAIN_INPUTS, (image[chosen], mask[chosen]), strict=True)))
    most = max(PARITY_BATCHES)
    yield from array_cases(image[most:], mask[most:], "further-face")


def refuse_difference(report: Mapping[str, Any], text: str) -> None:
    """Raise what failed in a report.

    Raises:
        ShowfaceError: something did.
    """
    if not report["passed"]:
        views = (*report["stages"].items(), ("chain", report["chain"]))
        failures = "; ".join(f"{name}: {failure}" for name, figures in views for failure in figures["failures"])
        raise ShowfaceError(f"{text}: {failures}")
