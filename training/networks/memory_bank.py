"""Disentangled memory: its slots, how they are read, filled and kept alive (paper §3.2, eqs 1-5)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MemoryConfig
from .clustering import cluster_means

MIN_NORM = 1e-4  # of a vector in a cosine; a smaller one would leave the float16 range
CODE_STEP = 2.0**-10  # codes are rounded to it before they are clustered: noise of the last bits decides no cluster
DEAD = 0.03  # of the mean usage; a slot that is used less starts anew (Dhariwal et al. 2020, Jukebox)


class DisentangledMemory(nn.Module):
    """Memory slots [blocks, m, c]: one block a category, or one block shared by all of them.

    Most of a code is common to all faces of its category. Where the similarity is ``centred``, that part, the
    moving average ``mean`` of the known codes, is taken from codes and slots before they are compared: otherwise
    one slot is the nearest to every query, and no other ever learns.

    Attributes:
        slots: [blocks, m, c].
        mean: [blocks, c], of the known codes.
        usage: [blocks, m], moving average of how often a slot is hit, relative to the mean of its block.
    """

    slots: Tensor
    mean: Tensor
    usage: Tensor

    def __init__(self, config: MemoryConfig, categories: int) -> None:
        super().__init__()
        shared = config.kind == "shared"
        shape = (1, categories * config.slots) if shared else (categories, config.slots)
        self.temperature, self.decay, self.centred = config.temperature, config.decay, config.similarity == "centred"
        self.register_buffer("slots", F.normalize(torch.randn(*shape, config.channels), dim=2))
        self.register_buffer("mean", torch.zeros(shape[0], config.channels))
        self.register_buffer("usage", torch.ones(shape))

    def similarity(self, queries: Tensor) -> Tensor:
        """Return the cosines γ [B, n, m] between ``queries`` [B, n, c] and their block's slots (eq. 1)."""
        slots = self.slots
        if self.centred:
            queries, slots = queries - self.mean, slots - self.mean[:, None]
        queries = queries / queries.norm(dim=2, keepdim=True).clamp(min=MIN_NORM)
        slots = slots / slots.norm(dim=2, keepdim=True).clamp(min=MIN_NORM)
        # The batch stays a batch dimension of the product: a face must not depend on its neighbours.
        return (queries[:, :, None, :] @ slots.transpose(1, 2)).squeeze(2)

    def read(self, queries: Tensor) -> Tensor:
        """Return Q̂ [B, n, c], the slots mixed by their softmax scores (eqs 4 and 5)."""
        scores = torch.softmax(self.similarity(queries) / self.temperature, dim=2)
        return (scores[:, :, None, :] @ self.slots).squeeze(2)

    @torch.no_grad()
    def fill(self, known: Tensor, generator: torch.Generator) -> None:
        """Start every block from the cluster means of codes of real faces (k-means).

        Random slots lie far from all codes, so that one of them wins every query and the others never
        live. A category with fewer codes than slots repeats them with a jitter of 1 %; one without any keeps its
        slots.

        Args:
            known: V [N, n, c]; the zero vector where a region is absent.
            generator: draws where the clusters start.
        """
        blocks, m, c = self.slots.shape
        for block in range(blocks):
            codes = known.reshape(-1, c) if blocks == 1 else known[:, block]
            codes = codes[codes.abs().amax(dim=1) > 0].float()
            if len(codes):
                self.mean[block] = codes.mean(dim=0)
                rounded = (codes / CODE_STEP).round() * CODE_STEP
                self.slots[block] = cluster_means(rounded, m, generator)
        self.usage.fill_(1.0)

    @torch.no_grad()
    def update(self, queries: Tensor, known: Tensor) -> Tensor:
        """Move the slot nearest to each query towards the known code (eqs 2 and 3), and start dead slots anew.

        Several samples that hit one slot are averaged first, in float64 and over all processes, so
        that neither their order in the batch nor their spread over devices matters. A region that is
        absent from the face or wholly hidden has the zero vector and is left out. A slot that is hardly ever hit
        takes a known code of this batch.

        Args:
            queries: Q [B, n, c].
            known: V [B, n, c].

        Returns:
            How often each slot was hit, [blocks, m].
        """
        blocks, m, _ = self.slots.shape
        present = (queries.abs().amax(dim=2) > 0) & (known.abs().amax(dim=2) > 0)
        with torch.autocast(queries.device.type, enabled=False):  # in bfloat16 slots that are near each other tie
            nearest = self.similarity(queries.float()).argmax(dim=2)
        hit = F.one_hot(nearest, m).double() * present[:, :, None]
        total = torch.einsum("bnm,bnc->nmc", hit, known.double())
        codes = torch.einsum("bn,bnc->nc", present.double(), known.double())
        count = hit.sum(dim=0)
        if blocks == 1:
            total, count, codes = (t.sum(dim=0, keepdim=True) for t in (total, count, codes))
        if dist.is_initialized():
            for tensor in (total, count, codes):
                dist.all_reduce(tensor)
        mean = total / count.clamp(min=1.0)[:, :, None]
        moved = self.decay * self.slots.double() + (1.0 - self.decay) * mean
        self.slots.copy_(torch.where(count[:, :, None] > 0, moved, self.slots.double()))
        hits = count.sum(dim=1, keepdim=True)
        faces = codes / hits.clamp(min=1.0)
        self.mean.copy_(
            torch.where(hits > 0, torch.lerp(self.mean.double(), faces, 1.0 - self.decay), self.mean.double())
        )
        used = torch.lerp(self.usage.double(), count * m / hits.clamp(min=1.0), 1.0 - self.decay)
        self.usage.copy_(torch.where(hits > 0, used, self.usage.double()))
        self._restart(known, present)
        return count

    def _restart(self, known: Tensor, present: Tensor) -> None:
        """Give the least used slot of each block, if it is dead, a known code of this batch.

        One slot a step and block, without asking the device whether there is one: a step must not wait for it.
        """
        blocks, m, _ = self.slots.shape
        if blocks == 1:
            known, present = known.reshape(-1, 1, known.shape[2]), present.reshape(-1, 1)
        first = present.double().argmax(dim=0)  # of the faces that show the category
        code = known.gather(0, first[None, :, None].expand(1, -1, known.shape[2]))[0]
        usage, slot = self.usage.min(dim=1)
        anew = F.one_hot(slot, m).bool() & ((usage < DEAD) & present.any(dim=0))[:, None]
        self.slots.copy_(torch.where(anew[:, :, None], code[:, None].to(self.slots.dtype), self.slots))
        self.usage.copy_(torch.where(anew, torch.ones_like(self.usage), self.usage))
        if dist.is_initialized():
            for tensor in (self.slots, self.usage):
                dist.broadcast(tensor, 0)
