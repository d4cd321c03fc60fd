"""Before a build: parse every stage, build nothing, and list what would not build."""

from __future__ import annotations

from dataclasses import dataclass

from showface.runtime.bundle import Bundle

from .process import run_request
from .refusals import module_names, module_of_refusal
from .request import BuildOptions, engine_request


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table.

    Attributes:
        stage: its name.
        target: of the build.
        supported: whether it parses, and nothing is known to stop the builder.
        dtypes: how many products compute in which type, as far as it parses.
        offending: each refused node with its operator and torch module.
        remedy: what to do about the first of them.
        argument: option of a build that does it; empty where it is none of them.
    """

    stage: str
    target: str
    supported: bool
    dtypes: str
    offending: tuple[str, ...] = ()
    remedy: str = ""
    argument: str = ""


def check_stages(bundle: Bundle, options: BuildOptions) -> list[Check]:
    """Parse all stages of ``bundle`` for one target, each in a process of its own."""
    options.check()
    rows = []
    for stage in bundle.manifest.graphs:
        request = engine_request(bundle, stage, options, bundle.folder / "unused", check_only=True)
        outcome = run_request(request)
        products = outcome.facts.get("products", {})
        dtypes = ", ".join(f"{count} × {dtype}" for dtype, count in sorted(products.items()))
        if outcome.good:
            rows.append(Check(stage.name, options.target, True, dtypes))
            continue
        modules = module_names(bundle.model(stage))
        offending = tuple(
            f"{r.node or 'graph'} ({r.operator}, {module_of_refusal(stage.name, r, modules)}): {r.reason}"
            for r in outcome.refusals
        )
        remedy = outcome.refusals[0].remedy if outcome.refusals else ""
        named = offending or (outcome.failure,)
        rows.append(Check(stage.name, options.target, False, dtypes, named, remedy, outcome.argument))
    return rows
