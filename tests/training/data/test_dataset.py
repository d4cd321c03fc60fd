"""Feeds: a batch depends on seed, step and position only, whatever the mode, the workers and the processes."""

import os
import signal
import time
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from fakes.processes import children

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES
from showface.training.config import (
    AugmentConfig,
    FeedConfig,
    MaskConfig,
    NetworkConfig,
    PhaseConfig,
    SourceConfig,
    TrainConfig,
    ValidationConfig,
)
from showface.training.data.augment import augment
from showface.training.data.dataset import draw, generator, open_feed
from showface.training.data.masks import MaskBank

SIZE = 32
CPU = torch.device("cpu")
HAT, EYEGLASSES = 14, 3  # of CelebAMask-HQ's labels


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def face(i):
    """Return face ``i`` as RGB; its first pixel is its number."""
    pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[0, 0] = i
    return pixels


def label(i):
    return np.full((SIZE, SIZE), 1 + i % 2, np.uint8)


@pytest.fixture
def data(tmp_path):
    """A tree of twelve faces with labels in two sources, and two bins of masks without symmetry."""
    for i in range(12):
        name = "a" if i < 8 else "b"
        write(tmp_path / f"{name}/{i:02d}.png", face(i)[..., ::-1])
        write(tmp_path / f"{name}-labels/{i:02d}.png", label(i))
    for name, ratio in (("20-30", 0.25), ("40-50", 0.45)):
        for i in range(2):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[: round(SIZE * ratio)] = 255
            mask[: SIZE // 4, : SIZE // 4 + i] = 0
            mask[-4 - i :, :8] = 255
            write(tmp_path / f"masks/train/{name}/{i}.png", mask)
    return tmp_path


def config(**changes):
    sources = {name: SourceConfig(name, labels=f"{name}-labels") for name in ("a", "b")}
    phases = {"small": PhaseConfig(3, 4, SIZE), "large": PhaseConfig(4, 8, SIZE)}
    base = TrainConfig(sources, phases, masks=MaskConfig("masks/train"), network=NetworkConfig(SIZE))
    return replace(base, **changes)


def on_disk(workers):
    return FeedConfig("disk", workers)


def same(first, second):
    tensors = all(
        a is b is None or torch.equal(a, b)
        for a, b in ((getattr(first, key), getattr(second, key)) for key in ("image", "mask", "labels"))
    )
    return tensors and first.names == second.names and first.positions == second.positions


def steps(run, data, start=0, with_labels=True):
    return list(open_feed(run, data, with_labels, CPU).batches(start))


def test_a_batch_holds_what_its_names_say(data):
    batches = steps(config(), data)
    assert [len(batch.names) for batch in batches] == [4] * 3 + [8] * 4
    files = sorted((data / "masks/train").rglob("*.png"))
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 255 for path in files]
    turned = {np.rot90(m, k)[:, :: 1 - 2 * flip].tobytes() for m in masks for k in range(4) for flip in (0, 1)}
    seen = set()
    for batch in batches:
        assert batch.image.dtype == batch.mask.dtype == batch.labels.dtype == torch.uint8
        assert batch.positions == tuple(range(len(batch.names)))
        for image, mask, labels, name in zip(batch.image, batch.mask, batch.labels, batch.names, strict=True):
            i = int(name[-6:-4])
            np.testing.assert_array_equal(image.numpy(), face(i).transpose(2, 0, 1))
            np.testing.assert_array_equal(labels.numpy(), label(i))
            assert mask.shape == (1, SIZE, SIZE)
            seen.add(mask.numpy().tobytes())
    assert seen <= turned
    assert len(seen) > 15  # of 4 masks times 8 turns


def test_seed_and_step_decide(data):
    first, second, other = steps(config(), data), steps(config(), data), steps(config(seed=1), data)
    assert all(map(same, first, second))
    assert not any(map(same, first, other))
    assert len({batch.names for batch in first}) == len(first)


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_disk_gives_the_batches_of_memory(data, workers, with_labels):
    memory = steps(config(), data, with_labels=with_labels)
    disk = steps(config(feed=on_disk(workers)), data, with_labels=with_labels)
    assert len(memory) == len(disk) == 7
    assert all(map(same, memory, disk))
    assert (disk[0].labels is None) is not with_labels
    single = open_feed(config(feed=on_disk(workers)), data, with_labels, CPU).batch(5, 8)
    assert same(single, memory[5])


@pytest.mark.parametrize("feed", [FeedConfig("memory", 2), on_disk(2)])
def test_resuming_continues_the_same_batches(data, feed):
    whole = steps(config(feed=feed), data)
    for start in (0, 2, 5, 7):
        rest = steps(config(feed=feed), data, start)
        assert len(rest) == 7 - start
        assert all(map(same, whole[start:], rest))


@pytest.mark.parametrize("feed", [FeedConfig("memory", 2), on_disk(1)])
def test_two_processes_share_what_one_sees(data, feed):
    run = config(feed=feed)
    settings, phase = AugmentConfig(10, 0.1, 0.1, 0.2, 0.5), PhaseConfig(1, 8, SIZE // 2, crop=8)
    whole = steps(run, data)
    halves = [list(open_feed(run, data, True, CPU, rank, 2).batches(0)) for rank in (0, 1)]
    for step, (one, left, right) in enumerate(zip(whole, *halves, strict=True)):
        assert left.positions + right.positions == one.positions
        assert left.names + right.names == one.names
        samples = [augment(batch, settings, phase, (0, step), CPU) for batch in (one, left, right)]
        assert samples[0].crop == samples[1].crop == samples[2].crop
        for key in ("image", "mask", "labels"):
            assert torch.equal(torch.cat([getattr(left, key), getattr(right, key)]), getattr(one, key))
            a, b, c = (getattr(sample, key) for sample in samples)
            assert torch.equal(torch.cat([b, c]), a)


def test_a_larger_batch_begins_with_the_smaller(data):
    feed = open_feed(config(), data, True, CPU)
    small, large = feed.batch(2, 4), feed.batch(2, 12)
    assert large.names[:4] == small.names
    assert torch.equal(large.mask[:4], small.mask)


def test_faces_and_masks_are_drawn_by_their_probability():
    shares = np.asarray([0.1, 0.3, 0.3, 1.0])
    bank = MaskBank(np.zeros((5, 4, 4), np.uint8), np.arange(1, 6) / 5, np.ones(5, np.bool_))
    drawn = [draw(generator(1, 0, step, position), shares, bank) for step in range(500) for position in range(8)]
    faces = Counter(d.image for d in drawn)
    np.testing.assert_allclose([faces[i] / 4000 for i in range(4)], [0.1, 0.2, 0.0, 0.7], atol=0.03)
    for key, count in (("mask", 5), ("turns", 4), ("mirrored", 2)):
        seen = Counter(getattr(d, key) for d in drawn)
        np.testing.assert_allclose([seen[i] / 4000 for i in range(count)], 1 / count, atol=0.03)
    assert abs(np.corrcoef([d.mask for d in drawn], [d.turns for d in drawn])[0, 1]) < 0.05


def test_a_mask_that_may_not_be_turned_is_taken_as_it_is():
    bank = MaskBank(np.zeros((2, 4, 4), np.uint8), np.asarray([0.3, 1.0]), np.asarray([True, False]))
    drawn = [draw(generator(1, 0, 0, position), np.ones(1), bank) for position in range(2000)]
    assert np.mean([d.mask for d in drawn]) == pytest.approx(0.7, abs=0.04)
    assert {(d.turns, d.mirrored) for d in drawn if d.mask == 1} == {(0, False)}
    assert len({(d.turns, d.mirrored) for d in drawn if d.mask == 0}) == 8


def test_rare_faces_are_drawn_more_often_in_memory(data):
    write(data / "a-labels/07.png", np.full((SIZE, SIZE), HAT, np.uint8))
    write(data / "b-labels/09.png", np.full((SIZE, SIZE), EYEGLASSES, np.uint8))
    assert {"hat", "eyeglasses"} <= set(CATEGORIES)
    shares = {}
    for name, run, with_labels in (
        ("parser", config(), True),
        ("others", config(), False),
        ("disk", config(feed=on_disk(0)), True),
    ):
        shares[name] = np.diff(open_feed(run, data, with_labels, CPU).shares, prepend=0.0)
    even = [0.5 / 8] * 8 + [0.5 / 4] * 4
    np.testing.assert_allclose(shares["others"], even)
    np.testing.assert_allclose(shares["disk"], even)
    rare = [0.5 / 11] * 7 + [2 / 11] + [0.5 / 7, 2 / 7, 0.5 / 7, 0.5 / 7]
    np.testing.assert_allclose(shares["parser"], rare)


@pytest.mark.parametrize("feed", [FeedConfig("memory", 1), on_disk(0)])
def test_held_out_faces_are_never_trained_on(data, feed):
    run = config(feed=feed, validation=ValidationConfig(4), phases={"p": PhaseConfig(40, 8, SIZE)})
    trained = {name for batch in steps(run, data) for name in batch.names}
    held = [name for batch in open_feed(run, data, True, CPU, held_out=True).every_face(2) for name in batch.names]
    assert [int(name[-6:-4]) for name in held] == [0, 4, 8]
    assert len(trained) == 9
    assert not trained & set(held)


def test_every_held_out_face_once_and_always_the_same(data):
    run = config(validation=ValidationConfig(2, faces=6))
    feed = open_feed(run, data, True, CPU, held_out=True)
    whole = next(feed.every_face(100))
    assert [int(name[-6:-4]) for name in whole.names] == [0, 2, 4, 6, 8, 10]
    assert whole.positions == tuple(range(6))
    for image, name in zip(whole.image, whole.names, strict=True):
        np.testing.assert_array_equal(image.numpy(), face(int(name[-6:-4])).transpose(2, 0, 1))
    parts = list(open_feed(run, data, True, CPU, held_out=True).every_face(4))
    assert [len(part.names) for part in parts] == [4, 2]
    for key in ("image", "mask", "labels"):
        assert torch.equal(torch.cat([getattr(part, key) for part in parts]), getattr(whole, key))
    halves = [next(open_feed(run, data, True, CPU, rank, 2, held_out=True).every_face(9)) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.mask for half in halves]), whole.mask)
    assert halves[0].names + halves[1].names == whole.names


def test_processes_see_equally_many_held_out_faces(data):
    run = config(validation=ValidationConfig(2, faces=5))
    halves = [list(open_feed(run, data, True, CPU, rank, 2, held_out=True).every_face(1)) for rank in (0, 1)]
    assert [len(half) for half in halves] == [2, 2]
    with pytest.raises(UsageError, match=r"validation: 1 held-out.*2 processes"):
        open_feed(config(validation=ValidationConfig(2, faces=1)), data, True, CPU, 0, 2, held_out=True)


def test_drawn_masks(data):
    batch = open_feed(config(masks=MaskConfig(None, drawn=12)), data, False, CPU).batch(0, 8)
    assert set(batch.mask.unique().tolist()) == {0, 1}
    assert 0.01 <= batch.mask.float().mean() <= 0.6


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_face_on_disk(data, workers):
    (data / "a/03.png").write_bytes(b"no image")
    run = config(feed=on_disk(workers), phases={"p": PhaseConfig(30, 8, SIZE)})
    with pytest.raises(UsageError, match=r"^\S*a/03\.png: not an image .*; replace the file or take it out$"):
        steps(run, data)


@pytest.mark.parametrize("feed", [FeedConfig("memory", 2), on_disk(1)])
def test_broken_files_are_named(data, feed):
    run = config(feed=feed, phases={"p": PhaseConfig(30, 8, SIZE)})
    write(data / "b-labels/11.png", np.full((SIZE, SIZE), 19, np.uint8))
    with pytest.raises(UsageError, match=r"b-labels/11\.png.*19"):
        steps(run, data)
    (data / "b-labels/11.png").unlink()
    with pytest.raises(UsageError, match=r"sources\.b: .*b-labels/11\.png"):
        steps(run, data)
    (data / "masks/train/20-30/1.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"20-30/1\.png"):
        steps(run, data, with_labels=False)


def test_broken_face_in_memory_is_named_at_once(data):
    (data / "a/03.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"a/03\.png"):
        open_feed(config(), data, False, CPU)


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({}, 3, r"phases\.small\.batch_size = 4.*3 processes"),
        ({"seed": -1}, 1, "seed = -1"),
        ({"feed": FeedConfig("disk", -1)}, 1, r"feed\.workers = -1"),
        ({"sources": {"x": SourceConfig("a", weight=0.0)}}, 1, r"sources\.x\.weight"),
        ({"sources": {"x": SourceConfig("absent")}}, 1, r"sources\.x: .*absent"),
        ({"masks": MaskConfig("nowhere")}, 1, "nowhere"),
    ],
)
def test_refused_before_the_first_step(data, changes, world, message):
    with pytest.raises(UsageError, match=message):
        open_feed(config(**changes), data, False, CPU, 0, world)
    with pytest.raises(UsageError, match=r"5 faces.*2 processes"):
        open_feed(config(), data, False, CPU, 0, 2).batch(0, 5)


def test_workers_leave_the_global_random_state_and_survive_signals(data):
    run = config(feed=on_disk(2), phases={"p": PhaseConfig(40, 4, SIZE)})
    expected = steps(config(phases=run.phases), data)
    state = torch.get_rng_state()
    batches = open_feed(run, data, True, CPU).batches(0)
    got = [next(batches) for _ in range(2)]  # one of each worker: both have started
    workers = children()
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    got.extend(batches)
    assert all(map(same, expected, got))
    assert len(got) == 40
    assert torch.equal(torch.get_rng_state(), state)
