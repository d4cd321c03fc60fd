"""The memory: equations 1-5 of the paper against plain loops in numpy, and region pooling."""

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from showface.training.config import MemoryConfig
from showface.training.networks.clustering import cluster_means
from showface.training.networks.memory import MemoryModule, region_pool, region_weights
from showface.training.networks.memory_bank import DisentangledMemory

N, M, C, B = 3, 4, 5, 6
KINDS = pytest.mark.parametrize("kind", ["disentangled", "shared"])


def bank(kind, temperature=1.0, decay=0.9):
    torch.manual_seed(0)
    return DisentangledMemory(MemoryConfig(kind, C, M, temperature, decay, similarity="plain"), N)


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
    known = torch.zeros(12, 3, 3)
    groups = torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat(3)
    known[:, 0] = groups[:, None] + 0.01 * torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    known[:2, 1] = torch.tensor([10.0, 20.0])[:, None]  # fewer codes than slots
    bank.fill(known, torch.Generator().manual_seed(0))
    for k in range(4):  # clear clusters are found, and each slot is the mean of one
        mean = known[k::4, 0].mean(dim=0)
        assert (bank.slots[0] - mean).norm(dim=1).min() < 1e-3  # codes are rounded to 2^-10
    assert sorted(bank.slots[1, :, 0].round().tolist()) == [10.0, 10.0, 20.0, 20.0]
    assert len(set(bank.slots[1, :, 0].tolist())) == 4  # none born dead
    assert torch.equal(bank.slots[2], before[2])
    torch.testing.assert_close(bank.mean[0], known[:, 0].mean(dim=0))
    shared = DisentangledMemory(MemoryConfig(kind="shared", channels=3, slots=4), 3)
    shared.fill(known, torch.Generator().manual_seed(0))
    assert {1, 2, 3, 4, 10, 20} <= {round(value) for value in shared.slots[0, :, 0].tolist()}


def test_cluster_means_are_no_worse_than_scipy():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(10, 6, generator=generator)
    codes = centres.repeat(40, 1) + torch.randn(400, 6, generator=generator)

    def error(means):
        return torch.cdist(codes, means).min(dim=1).values.square().mean().item()

    theirs, _ = kmeans2(codes.double().numpy(), 10, minit="++", seed=0)
    assert error(cluster_means(codes, 10, generator)) < 1.1 * error(torch.from_numpy(theirs).float())


def test_a_slot_that_nobody_hits_starts_anew():
    memory = DisentangledMemory(MemoryConfig(channels=C, slots=M, decay=0.5), N)
    far = torch.full((C,), 50.0)
    memory.mean.zero_()
    memory.slots[0] = torch.eye(C)[:M]
    memory.slots[0, 3] = -far
    known = torch.eye(C)[:3].repeat(2, 1)[:, None].expand(B, N, C).contiguous()
    for _ in range(20):
        memory.slots[0, :3] = torch.eye(C)[:3]
        memory.mean.zero_()
        memory.update(known, known)
    assert not torch.equal(memory.slots[0, 3], -far)
    assert (memory.slots[0, 3] - known[:, 0]).norm(dim=1).min() < 1e-6
    assert (memory.usage[0, :3] > 0.1).all()


def test_centred_codes_are_compared_without_their_mean():
    memory, (queries, _) = bank("disentangled"), codes()
    centred = DisentangledMemory(MemoryConfig("disentangled", C, M, 1.0, 0.9), N)
    common = 100 * torch.randn(N, C, generator=torch.Generator().manual_seed(5))
    centred.slots.copy_(memory.slots + common[:, None])
    centred.mean.copy_(common)
    torch.testing.assert_close(centred.similarity(queries + common), memory.similarity(queries), atol=1e-3, rtol=0)
    plain = bank("disentangled")
    plain.slots.copy_(centred.slots)
    assert plain.similarity(queries + common).std() < 0.1 * memory.similarity(queries).std()


def test_the_mean_follows_the_known_codes():
    memory, (queries, known) = bank("disentangled", decay=0.9), codes()
    before = memory.mean.clone()
    memory.update(queries, known)
    torch.testing.assert_close(memory.mean, 0.9 * before + 0.1 * known.mean(dim=0))


def test_the_nearest_slot_is_found_in_float32():
    """Slots that are near each other tie in bfloat16, and the first of them would win."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, N, 64, generator=generator) + 0.05 * torch.randn(16, N, 64, generator=generator)
    memories = [DisentangledMemory(MemoryConfig("disentangled", 64, 32, similarity="plain"), N) for _ in range(2)]
    slots = queries[:1].transpose(0, 1) + 0.05 * torch.randn(N, 32, 64, generator=generator)
    for memory in memories:
        memory.slots.copy_(slots)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = memories[1].similarity(queries).argmax(dim=2)
        got = memories[1].update(queries, queries)
    assert not torch.equal(lowered, memories[0].similarity(queries).argmax(dim=2))
    assert torch.equal(memories[0].update(queries, queries), got)
    assert torch.equal(memories[0].slots, memories[1].slots)
