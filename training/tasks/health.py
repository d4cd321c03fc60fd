"""Whether the refinement is alive: what the memory answers, and whether skips are heard at the joins.

Each figure is of a fault that once kept a model from learning: slots that no query hits, answers that do not vary,
a residual stream that drowns its skip connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import CATEGORIES

from ..checkpoint import belongs
from ..networks.layers import Join
from ..networks.mdrnets import MDRNets
from ..networks.memory import region_pool, region_weights

MOST_DROWNED = 10.0  # deviation of a stream over that of the skip that joins it
LEAST_SPREAD = 0.1  # deviation of the style features over faces and places
FEWEST_HIT = 4  # slots of a category's block that some face hits, where 16 faces show it
MOST_SEEN = 16


@dataclass(frozen=True, slots=True)
class HealthFaces:
    """A batch of faces, with their coarse faces and category maps.

    Attributes:
        image: [B, 3, H, W] in [-1, 1], the whole face.
        mask: [B, 1, H, W], 1 in the hole.
        coarse_image: P [B, 3, H, W].
        semantic_map: S [B, H, W].
    """

    image: Tensor
    mask: Tensor
    coarse_image: Tensor
    semantic_map: Tensor


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """What one block of the memory does.

    Attributes:
        faces: how many show the category.
        hit: slots that are the nearest one to some face's query (eq. 2).
        slots: of the block.
        variance: var(Q̂) / var(V), how much of what tells faces apart the answers keep; V are the true codes.
        r2: share of the variance of the true codes that the answers explain; below 0 they are worse than the mean.
    """

    faces: int
    hit: int
    slots: int
    variance: float | None
    r2: float | None


@torch.no_grad()
def memory_figures(model: MDRNets, batches: Iterable[HealthFaces]) -> dict[str, MemoryFigures]:
    """Return the figures of each category; one entry, ``all``, where one block serves all of them.

    Args:
        model: assembled, with a memory, in evaluation mode.
        batches: faces with holes.
    """
    bank = model.memory.bank
    assert bank is not None
    blocks, m, c = bank.slots.shape
    nearest, answers, truths = [], [], []
    for face in batches:
        queries, _ = model.memory.codes(face.coarse_image, face.semantic_map, face.mask)
        regions = region_weights(face.semantic_map, len(CATEGORIES))
        nearest.append(bank.similarity(queries).argmax(dim=2))
        answers.append(bank.read(queries))
        truths.append(region_pool(model.memory.encoder(face.image), regions))
    hits, found, true = (torch.cat(parts).cpu() for parts in (nearest, answers, truths))
    if blocks == 1:
        hits, found, true = hits.reshape(-1, 1), found.reshape(-1, 1, c), true.reshape(-1, 1, c)
    names = CATEGORIES if blocks > 1 else ("all",)
    return {name: _figures(hits[:, k], found[:, k], true[:, k], m) for k, name in enumerate(names)}


def _figures(nearest: Tensor, found: Tensor, true: Tensor, slots: int) -> MemoryFigures:
    present = true.abs().amax(dim=1) > 0
    nearest, found, true = nearest[present], found[present].double(), true[present].double()
    hit = len(nearest.unique())
    if len(true) < 2:
        return MemoryFigures(len(true), hit, slots, None, None)
    spread = (true - true.mean(dim=0)).square().sum().clamp(min=1e-12)
    variance = (found - found.mean(dim=0)).square().sum() / spread
    return MemoryFigures(len(true), hit, slots, float(variance), float(1 - (found - true).square().sum() / spread))


@torch.no_grad()
def join_ratios(model: MDRNets, face: HealthFaces) -> dict[str, float]:
    """Return, for each join of the refiner, the deviation of the stream over that of the skip which it meets."""
    ratios: dict[str, float] = {}
    with _watched(model.refiner, ratios):
        guidance = model.guidance(face.coarse_image, face.semantic_map, face.mask)
        model.refiner(face.coarse_image, face.mask, guidance)
    return ratios


@contextmanager
def _watched(refiner: nn.Module, ratios: dict[str, float]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def note(module: Join, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            skip = module.norm_skip(inputs[1]).float()
            ratios[name] = float((output.float() - skip).std() / skip.std().clamp(min=1e-9))

        return note

    hooks = [m.register_forward_hook(watch(name)) for name, m in refiner.named_modules() if isinstance(m, Join)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def faults(memory: Mapping[str, MemoryFigures], ratios: Mapping[str, float], spread: float) -> list[str]:
    """Return a sentence for each figure that says that training on would be wasted.

    Args:
        memory: from :func:`memory_figures`; empty while the memory is not filled.
        ratios: from :func:`join_ratios`.
        spread: deviation of the style features.
    """
    found = [
        f"{name}: {f.hit} of {f.slots} slots answer {f.faces} faces"
        for name, f in memory.items()
        if f.faces >= MOST_SEEN and f.hit < FEWEST_HIT
    ]
    found += [
        f"refiner.{name}: the stream is {ratio:.1f} times as wide as the skip that joins it"
        for name, ratio in ratios.items()
        if not 1 / MOST_DROWNED < ratio < MOST_DROWNED
    ]
    if spread < LEAST_SPREAD:
        found.append(f"style features: their deviation is {spread:.3f}")
    return found


def health_report(model: MDRNets, batches: list[HealthFaces], filled: bool, learning: tuple[str, ...]) -> str:
    """Return the figures of a model in evaluation mode as lines of text.

    The joins are watched on the first batch of the faces with holes; only those of the networks in ``learning`` count.
    The memory is looked at if it is ``filled``. Compiled networks run uncompiled: for the hooks that watch a join they
    would be compiled anew.

    Raises:
        ShowfaceError: a figure says that training on would be wasted; the message names it.
    """
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        memory = memory_figures(model, batches) if filled and model.memory.bank is not None else {}
        joins = join_ratios(model, batches[0])
        features = torch.cat([model.memory.encoder(face.coarse_image) for face in batches])
    ratios = {name: ratio for name, ratio in joins.items() if belongs(f"refiner.{name}", learning)}
    spread = float(features.float().std(dim=(0, 2, 3)).mean())
    lines = [
        f"  {name}: {f.hit}/{f.slots} slots by {f.faces} faces, var {_text(f.variance)}, R² {_text(f.r2)}"
        for name, f in memory.items()
        if f.faces
    ]
    lines.append("  stream/skip: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    lines.append(f"  deviation of the style features: {spread:.2f}")
    bad = faults(memory, ratios, spread)
    text = "\n".join(lines)
    if bad:
        raise ShowfaceError(f"the refinement is not alive: {'; '.join(bad)}; change the config and start anew\n{text}")
    return text


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
