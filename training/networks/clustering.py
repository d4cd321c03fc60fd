"""K-means of codes, for the memory's slots (Lloyd 1982; start of Arthur & Vassilvitskii 2007)."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 10
JITTER = 0.01  # of the codes' deviation


@torch.no_grad()
def cluster_means(codes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the means [count, c] of clusters of ``codes`` [N, c].

    Fewer codes than clusters are repeated, and jittered by 1 % of their deviation, so that no two means are equal.

    Args:
        codes: at least one.
        count: clusters.
        generator: draws the start and the jitter; on the CPU.
    """
    if len(codes) <= count:
        chosen = codes[torch.arange(count, device=codes.device) % len(codes)]
        noise = torch.randn(chosen.shape, generator=generator).to(codes)
        return chosen + JITTER * codes.std(dim=0, correction=0) * noise
    means = _spread_start(codes, count, generator)
    for _ in range(ITERATIONS):
        nearest = torch.cdist(codes, means).argmin(dim=1)
        sums = torch.zeros_like(means).index_add_(0, nearest, codes)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        means = torch.where(sizes > 0, sums / sizes.clamp(min=1), means)
    return means


def _spread_start(codes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` of the codes, each with a probability that grows with its distance from those before."""
    first = int(torch.randint(len(codes), (1,), generator=generator))
    chosen = [first]
    distance = (codes - codes[first]).square().sum(dim=1)
    for _ in range(count - 1):
        weights = distance.double().cpu()
        if float(weights.sum()) <= 0:  # equal codes only
            weights = torch.ones_like(weights)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        distance = torch.minimum(distance, (codes - codes[chosen[-1]]).square().sum(dim=1))
    return codes[chosen]
