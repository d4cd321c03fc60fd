"""The memory: equations 1-5 of the paper against plain loops in numpy, and region pooling."""

import numpy as np
import pytest
import torch

from showface.training.config import MemoryConfig
from showface.training.networks.memory import DisentangledMemory, MemoryModule, region_pool, region_weights

N, M, C, B = 3, 4, 5, 6
KINDS = pytest.mark.parametrize("kind", ["disentangled", "shared"])


def bank(kind, temperature=1.0, decay=0.9):
    torch.manual_seed(0)
    return DisentangledMemory(MemoryConfig(kind, C, M, temperature, decay), N)


def codes(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, N, C, generator=generator), torch.randn(B, N, C, generator=generator)


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@KINDS
def test_shape_and_volume(kind):
    assert bank(kind).slots.shape == ((N, M, C) if kind == "disentangled" else (1, N * M, C))


@KINDS
def test_update_against_loops(kind):
    memory, (queries, known) = bank(kind), codes()
    before = memory.slots.numpy().astype(np.float64)
    hits = {}
    for b in range(B):
        for n in range(N):
            block = n if kind == "disentangled" else 0
            nearest = int(np.argmax([cosine(queries[b, n].double().numpy(), slot) for slot in before[block]]))
            hits.setdefault((block, nearest), []).append(known[b, n].double().numpy())
    expected, counts = before.copy(), np.zeros(before.shape[:2])
    for (block, slot), values in hits.items():
        expected[block, slot] = 0.9 * before[block, slot] + 0.1 * np.mean(values, axis=0)
        counts[block, slot] = len(values)
    assert counts.max() > 1
    assert counts.min() == 0
    np.testing.assert_array_equal(memory.update(queries, known).numpy(), counts)
    np.testing.assert_allclose(memory.slots.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(memory.slots.numpy()[counts == 0], before[counts == 0].astype(np.float32))


@KINDS
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_read_against_loops(kind, temperature):
    memory, (queries, _) = bank(kind, temperature), codes()
    result, slots = memory.read(queries).numpy(), memory.slots.numpy().astype(np.float64)
    for b in range(B):
        for n in range(N):
            block = slots[n if kind == "disentangled" else 0]
            score = np.exp([cosine(queries[b, n].double().numpy(), slot) / temperature for slot in block])
            score /= score.sum()
            np.testing.assert_allclose(result[b, n], sum(s * v for s, v in zip(score, block, strict=True)), atol=1e-5)


def test_low_temperature_reads_the_nearest_slot():
    queries, _ = codes()
    sharp = bank("disentangled", temperature=1e-3)
    nearest = sharp.similarity(queries).argmax(dim=2)
    expected = sharp.slots[torch.arange(N), nearest]
    assert (sharp.read(queries) - expected).norm() < 0.2 * (bank("disentangled").read(queries) - expected).norm()


@KINDS
def test_order_in_the_batch_changes_nothing(kind):
    queries, known = codes()
    first, second = bank(kind), bank(kind)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first.update(queries, known), second.update(queries[order], known[order]))
    assert torch.equal(first.slots, second.slots)


@KINDS
def test_absent_regions_change_nothing(kind):
    queries, known = codes()
    queries[0, 0], known[1, 1] = 0, 0  # absent from the face; wholly hidden
    memory, without = bank(kind), bank(kind)
    assert memory.update(queries, known).sum() == B * N - 2
    for region in range(N):
        if kind == "disentangled":
            kept = [b for b in range(B) if b != region or region == 2]
            without.update(queries[kept], known[kept])
            assert torch.equal(memory.slots[region], without.slots[region])
            without = bank(kind)
    before = memory.slots.clone()
    memory.update(torch.zeros(B, N, C), known)
    memory.update(queries, torch.zeros(B, N, C))
    assert torch.equal(memory.slots, before)


def test_zero_queries_read_finite_codes():
    memory = bank("disentangled")
    read = memory.read(torch.zeros(1, N, C))
    assert torch.allclose(read[0], memory.slots.mean(dim=1), atol=1e-6)


def test_region_pool_against_numpy_masks():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(N - 1, (2, 32, 32), generator=generator)  # the last category is absent
    features = torch.randn(2, C, 8, 8, generator=generator)
    weights = region_weights(labels, N)
    pooled = region_pool(features, weights).numpy()
    cells = labels.numpy()[:, 2::4, 2::4]
    for b in range(2):
        for n in range(N - 1):
            inside = cells[b] == n
            np.testing.assert_allclose(pooled[b, n], features.numpy()[b][:, inside].mean(axis=1), atol=1e-5)
    assert not pooled[:, N - 1].any()


def test_region_below_one_cell_fades():
    features = torch.ones(1, C, 2, 2)
    weights = torch.zeros(1, 1, 4)
    weights[0, 0, 1] = 0.25
    assert torch.equal(region_pool(features, weights), torch.full((1, 1, C), 0.25))


def test_known_codes_ignore_the_hole():
    torch.manual_seed(4)
    module = MemoryModule(MemoryConfig(channels=C, slots=M, encoder_width=8), N).requires_grad_(False)
    image, labels = torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, :16] = 1
    mask = torch.zeros(1, 1, 32, 32)
    mask[:, :, :16] = 1
    queries, known = module.codes(image, labels, mask)
    features = module.encoder(image)
    assert torch.allclose(known[0, 0], features[0, :, 4:].mean(dim=(1, 2)), atol=1e-5)
    assert not known[0, 1:].any()
    assert torch.allclose(queries[0, 1], features[0, :, :4].mean(dim=(1, 2)), atol=1e-5)


def test_fill_starts_each_block_from_its_own_category():
    bank = DisentangledMemory(MemoryConfig(channels=3, slots=4), 3)
    before = bank.slots.clone()
    known = torch.zeros(6, 3, 3)
    known[:5, 0] = torch.arange(1.0, 6.0)[:, None]  # more codes than slots
    known[:2, 1] = torch.tensor([10.0, 20.0])[:, None]  # fewer
    bank.fill(known, torch.Generator().manual_seed(0))
    assert len(set(bank.slots[0, :, 0].tolist())) == 4
    assert set(bank.slots[0, :, 0].tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert sorted(bank.slots[1, :, 0].tolist()) == [10.0, 10.0, 20.0, 20.0]
    assert torch.equal(bank.slots[2], before[2])
    shared = DisentangledMemory(MemoryConfig(kind="shared", channels=3, slots=4), 3)
    shared.fill(known, torch.Generator().manual_seed(0))
    assert set(shared.slots[0, :, 0].tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0}


def test_the_nearest_slot_is_found_in_float32():
    """Slots that are near each other tie in bfloat16, and the first of them would win."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, N, 64, generator=generator) + 0.05 * torch.randn(16, N, 64, generator=generator)
    memories = [DisentangledMemory(MemoryConfig("disentangled", 64, 32), N) for _ in range(2)]
    slots = queries[:1].transpose(0, 1) + 0.05 * torch.randn(N, 32, 64, generator=generator)
    for memory in memories:
        memory.slots.copy_(slots)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = memories[1].similarity(queries).argmax(dim=2)
        got = memories[1].update(queries, queries)
    assert not torch.equal(lowered, memories[0].similarity(queries).argmax(dim=2))
    assert torch.equal(memories[0].update(queries, queries), got)
    assert torch.equal(memories[0].slots, memories[1].slots)
