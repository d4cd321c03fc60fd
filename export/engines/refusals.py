"""Say which node of which torch module a parser or builder refused, why, and what to do."""

from __future__ import annotations

from .network import NodeRefusal
from .process import BuildOutcome

UNKNOWN = "unknown: pip install onnx to see it"


def module_names(data: bytes) -> dict[str, str] | None:
    """Return the torch module of each node of a graph, or None where ``onnx`` is not installed."""
    try:
        from ..graph import node_modules
    except ModuleNotFoundError:
        return None
    try:
        return node_modules(data)
    except Exception:  # protobuf's own error; the parser has already said that the graph is broken
        return {}


def module_of_refusal(stage: str, refusal: NodeRefusal, modules: dict[str, str] | None) -> str:
    """Return the torch module that a refused node came from, such as ``refiner.decode4.spade1``."""
    if not refusal.node:
        return stage
    if modules is None:
        return UNKNOWN
    return ".".join(part for part in (stage, modules.get(refusal.node, "")) if part)


def explain(stage: str, data: bytes, outcome: BuildOutcome) -> str:
    """Return one sentence about a failed outcome of a stage, whose graph is ``data``."""
    if outcome.failure:
        return f"stage {stage}: {outcome.failure}"
    first, modules = outcome.refusals[0], module_names(data)
    more = f" (and {len(outcome.refusals) - 1} more)" if len(outcome.refusals) > 1 else ""
    operator = f" ({first.operator})" if first.operator else ""
    node = f"node {first.node!r}{operator} of torch module {module_of_refusal(stage, first, modules)}: "
    return f"stage {stage}: {node if first.node else ''}{first.reason}{more}; {first.remedy}"
