"""Which torch module brings in the error of a stage: its intermediate tensors, compared one by one.

The exported graph keeps, for each node, the modules in which it was traced. What leaves a module in the
graph is compared with what a forward hook saw leave it in PyTorch, in the order of execution. A runtime
fuses nodes, so the graph is run as a debug build in which these tensors are outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.sources import ChainSource
from showface.evaluation.parity.torch_source import TorchSource
from showface.evaluation.parity.validate import ValidatedPair
from showface.runtime.backends.chain import Tensors
from showface.runtime.backends.tensorrt.chain import DeviceChain
from showface.runtime.bundle import Bundle
from showface.runtime.stages import Stage

from .engines import debug
from .graph import readers, scopes_of

logger = logging.getLogger(__name__)

JUMP = 10.0  # times the error before it
# Relative error that rounding alone brings into a tensor, a few units in the last place of each precision.
ROUNDING = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "int8": 1e-1}
HALF_MAX, HALF_TINY = 65504.0, 2.0**-24  # what float16 can hold
# Runs a model with all its outputs; the engine of another backend, built from the marked model, fits too.
DebugRun = Callable[[onnx.ModelProto, Tensors, Sequence[str]], dict[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class ModuleFigures:
    """How the output of one module differs.

    Attributes:
        module: its name in the model, with its stage.
        folded: a module that the graph computes together with it, such as a batch normalisation.
        tensor: name of its output in the graph.
        error: largest absolute error over the largest absolute value of the reference; for integers the
            share of values that differ; None where one side alone is not finite.
        max_abs: largest absolute error.
        reference_range: smallest and largest value in PyTorch, of what is finite.
        candidate_range: the same of the candidate, of what is finite.
        outside_half: share of the reference's values that float16 cannot hold: too large, or flushed to zero.
        not_finite: number of values that are NaN or infinite on one side and not equal on the other.
    """

    module: str
    folded: str
    tensor: str
    error: float | None
    max_abs: float | None
    reference_range: tuple[float, float]
    candidate_range: tuple[float, float]
    outside_half: float
    not_finite: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a forward hook saw."""

    module: str
    source: str  # of its first input: the module that made it
    outputs: tuple[torch.Tensor, ...]


def attribute_failures(found: ValidatedPair, bundle: Bundle) -> None:
    """Add, under ``attribution``, the module where the error of each failed stage jumps.

    It is added to what a comparison of ``bundle`` with a checkpoint found.
    """
    result, origin, source = found.outcome.result, found.reference, found.candidate
    assert isinstance(origin, TorchSource)
    assert isinstance(source, ChainSource)
    failed = [name for name, figures in result["stages"].items() if not figures["passed"]]
    run_of = None
    if isinstance(source.loaded, DeviceChain):
        logger.info("attribution: a debug engine of %s is built", " and ".join(failed))
        run_of = partial(debug.debug_run, source.loaded)
    suspects = {name: found.outcome.suspects[name] for name in failed}
    result["attribution"] = attribute_stages(bundle, origin, suspects, result["candidate"]["precision"], run_of)


def attribute_stages(
    bundle: Bundle,
    origin: TorchSource,
    suspects: Mapping[str, Sequence[Case]],
    precision: Mapping[str, str],
    run_of: Callable[[Stage], DebugRun] | None = None,
) -> list[dict[str, Any]]:
    """Name the module that brings in the error of each failed stage.

    Args:
        bundle: the candidate.
        origin: PyTorch with the same weights.
        suspects: the cases that were the worst of each failed stage; the first that shows the error serves.
        precision: compute precision of each stage.
        run_of: returns what runs the marked graph of a stage; ONNX Runtime on the CPU by default.

    Returns:
        For each stage its name, the ``module``, a ``sentence``, and the figures of all ``modules`` in order. Where
        the marked graph cannot be run, the sentence says why: the figures of the stages stand without it.
    """
    found = []
    for stage in bundle.manifest.stages:
        if stage.name not in suspects:
            continue
        try:
            finding = _attribute(bundle, origin, stage, suspects[stage.name], ROUNDING[precision[stage.name]], run_of)
        except Exception as error:  # whatever it is: the verdict stands without it
            finding = _unknown(stage, error)
        if finding is not None:
            found.append(finding)
    return found


def _attribute(
    bundle: Bundle,
    origin: TorchSource,
    stage: Stage,
    cases: Sequence[Case],
    rounding: float,
    run_of: Callable[[Stage], DebugRun] | None,
) -> dict[str, Any] | None:
    """Return the finding of the first case in which an error jumps, else that of the first that could be run."""
    proto, run, result = onnx.load_model_from_string(bundle.model(stage)), run_of(stage) if run_of else None, None
    for case in cases:
        tensors = origin.chain(case)
        inputs = {name: tensors[name] for name in stage.inputs}
        try:
            figures = compare_modules(proto, stage, origin.modules()[stage.name], inputs, run)
        except Exception as error:  # of a runtime's own types; an engine may refuse a batch that the chain splits
            result = result or _unknown(stage, error)
            continue
        jump = first_jump(figures, rounding)
        if jump is not None:
            return _finding(stage, figures, jump, rounding)
        if result is None or not result["modules"]:
            result = _finding(stage, figures, None, rounding)
    return result


def compare_modules(
    proto: onnx.ModelProto, stage: Stage, module: nn.Module, inputs: Tensors, run: DebugRun | None = None
) -> list[ModuleFigures]:
    """Compare what leaves each module of a stage, in the order of execution.

    Args:
        proto: the stage's graph.
        stage: its entry of the stage table.
        module: the same in PyTorch.
        inputs: of the stage; others are left out.
        run: runs the marked graph; ONNX Runtime on the CPU by default.
    """
    fed = {name: inputs[name] for name in stage.inputs}
    seen = _watch(module, [torch.from_numpy(array) for array in fed.values()])
    leaving = {**_leaving_tensors(proto), "": list(stage.outputs)}
    names = sorted({name for entry in seen for name in leaving.get(entry.module, ())})
    computed = (run or run_marked)(marked_model(proto, names), fed, names)
    figures = []
    for entry in seen:
        # A convolution that the exporter folded into the normalisation behind it has no nodes of its own: what
        # left the normalisation is then the figure of both, under the convolution's name.
        folded = bool(entry.source) and entry.source not in leaving
        name_of, partner = (entry.source, entry.module) if folded else (entry.module, "")
        pairs = _match(entry.outputs, {name: computed[name] for name in leaving.get(entry.module, ())})
        for name, output in pairs:
            names_of = _full(stage, name_of), _full(stage, partner) if partner else ""
            figures.append(_figures(*names_of, name, output.numpy(), computed[name]))
    return figures


def first_jump(figures: Sequence[ModuleFigures], rounding: float) -> ModuleFigures | None:
    """Return the first module whose error is far above all errors before it and above rounding; None if none is."""
    before = rounding / JUMP
    for entry in figures:
        if entry.error is None or entry.error > JUMP * before:
            return entry
        before = max(before, entry.error)
    return None


def marked_model(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of ``proto`` in which the tensors ``names`` are outputs too."""
    marked = onnx.ModelProto()
    marked.CopyFrom(proto)
    outputs = {output.name for output in marked.graph.output}
    known = {value.name: value for value in marked.graph.value_info}
    for name in names:
        if name not in outputs:
            marked.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    return marked


def run_marked(proto: onnx.ModelProto, inputs: Tensors, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Run a marked graph in ONNX Runtime on the CPU."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), dict(inputs)), strict=True))


@torch.no_grad()
def _watch(module: nn.Module, arguments: Sequence[torch.Tensor]) -> list[_Seen]:
    """Run ``module`` and return what left each of its modules, in the order in which they ended."""
    seen: list[_Seen] = []
    makers: dict[int, str] = {}
    alive: list[Any] = []  # or an id would be given again

    def hook(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, given: Any, result: Any) -> None:
            outputs = result if isinstance(result, tuple) else (result,)
            alive.append((given, outputs))
            seen.append(_Seen(name, makers.get(id(given[0]), "") if given else "", tuple(o.clone() for o in outputs)))
            made = (output for output in outputs if all(output is not argument for argument in given))
            makers.update({id(output): name for output in made})

        return keep

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules()]
    try:
        module(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _leaving_tensors(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the tensors that leave each module in the graph, in its order."""
    scopes, following = _scopes(proto), readers(proto)
    outputs = {output.name for output in proto.graph.output}
    leaving: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for module in scopes[node.output[0]]:
            for name in node.output:
                reading = (scopes[reader.output[0]] for reader in following.get(name, []))
                if name in outputs or any(module not in scope for scope in reading):
                    leaving.setdefault(module, []).append(name)
    return leaving


def _scopes(proto: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the modules, outermost first, that each node was traced in, by the node's first output.

    A node that a pass of the exporter made carries none: it has what those that read it have in common.
    """
    scopes, following = dict[str, tuple[str, ...]](), readers(proto)
    for node in reversed(proto.graph.node):
        traced = scopes_of(node)
        if traced is None:
            using = [scopes[reader.output[0]] for name in node.output for reader in following.get(name, [])]
            shared = set.intersection(*map(set, using)) if using else set()
            traced = tuple(name for name in (using[0] if using else ()) if name in shared)
        scopes[node.output[0]] = traced
    return scopes


def _match(outputs: Sequence[torch.Tensor], leaving: Tensors) -> list[tuple[str, torch.Tensor]]:
    """Pair what left a module in PyTorch with what leaves it in the graph: by shape, the one made last first."""
    free = list(leaving)
    pairs = []
    for output in reversed(outputs):
        name = next((name for name in reversed(free) if leaving[name].shape == tuple(output.shape)), None)
        if name is not None:
            free.remove(name)
            pairs.append((name, output))
    return pairs[::-1]


def _figures(module: str, folded: str, tensor: str, reference: NDArray[Any], candidate: NDArray[Any]) -> ModuleFigures:
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    alike = finite | (a == b) | (np.isnan(a) & np.isnan(b))
    difference = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    largest = float(np.abs(a[finite]).max(initial=0.0))
    if np.issubdtype(reference.dtype, np.integer):
        error = float((a != b).mean())
    else:
        error = difference / largest if largest else float(difference > 0)
    magnitude = np.abs(a[np.isfinite(a)])
    outside = (magnitude > HALF_MAX) | ((magnitude > 0) & (magnitude < HALF_TINY))
    known, shown = (side[finite] if finite.any() else np.zeros(1) for side in (a, b))
    return ModuleFigures(
        module=module,
        folded=folded,
        tensor=tensor,
        error=error if alike.all() else None,
        max_abs=difference if alike.all() else None,
        reference_range=(float(known.min()), float(known.max())),
        candidate_range=(float(shown.min()), float(shown.max())),
        outside_half=float(outside.mean()) if outside.size else 1.0,
        not_finite=int((~alike).sum()),
    )


def _full(stage: Stage, module: str) -> str:
    """Return the module's name in the model; the parser's stage wraps it under its own name."""
    if not module or module == stage.name or module.startswith(f"{stage.name}."):
        return module or stage.name
    return f"{stage.name}.{module}"


def _unknown(stage: Stage, error: BaseException) -> dict[str, Any]:
    sentence = f"not attributed to a module: {error}"
    return {"stage": stage.name, "module": None, "sentence": sentence, "modules": []}


def _finding(
    stage: Stage, figures: Sequence[ModuleFigures], jump: ModuleFigures | None, rounding: float
) -> dict[str, Any]:
    rows = [asdict(entry) for entry in figures]
    if jump is None:
        sentence = "no module's error stands out; each adds a little"
        if all(entry.error is not None and entry.error <= rounding for entry in figures):
            sentence = "the failure does not show where the marked graph is run: no module's error is above rounding"
        return {"stage": stage.name, "module": None, "sentence": sentence, "modules": rows}
    low, high = jump.reference_range
    where = f"{jump.module} (with {jump.folded})" if jump.folded else jump.module
    error = f"{jump.not_finite} values are not finite" if jump.error is None else f"relative error {jump.error:.2e}"
    sentence = (
        f"the error jumps in {where}: {error}, values from {low:.3g} to {high:.3g}, "
        f"{jump.outside_half:.2%} of them outside the float16 range"
    )
    return {"stage": stage.name, "module": jump.module, "sentence": sentence, "modules": rows}
