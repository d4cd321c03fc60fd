"""A sample depends on seed and number only; nothing that is held out is trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from showface.runtime.errors import UsageError
from showface.training.data.occlusions.feed import open_occlusion_feed, open_synthesis
from showface.training.occluder.config import ShareConfig

CPU = torch.device("cpu")


def steps(feed, start=0):
    return [(b.image.clone(), b.labels.clone(), b.names, b.positions) for b in feed.batches(start)]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2:] == b[2:]
        for a, b in zip(first, second, strict=True)
    )


def test_memory_and_workers_give_the_same_samples(tree, run):
    memory = steps(open_occlusion_feed(run(), tree, CPU))
    assert same(memory, steps(open_occlusion_feed(run("disk", 2), tree, CPU)))
    assert same(memory[2:], steps(open_occlusion_feed(run(), tree, CPU), 2))
    assert memory[0][0].shape == (2, 3, 64, 64)
    assert memory[0][1].shape == (2, 64, 64)


def test_two_processes_share_the_batch_of_one(tree, run):
    whole = steps(open_occlusion_feed(run(), tree, CPU))
    parts = [steps(open_occlusion_feed(run(), tree, CPU, rank, 2)) for rank in range(2)]
    for k, (image, labels, _, _) in enumerate(whole):
        assert torch.equal(image, torch.cat([part[k][0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[k][1] for part in parts]))


def test_a_kept_sample_is_made_once(tree, run, monkeypatch):
    from showface.training.data.occlusions.synthesis import Synthesis

    made, original = [], Synthesis.sample

    def counted(self, rng, kind=None):
        made.append(1)
        return original(self, rng, kind)

    monkeypatch.setattr(Synthesis, "sample", counted)
    feed = open_occlusion_feed(run(steps=40), tree, CPU)
    drawn = {name for _, _, names, _ in steps(feed) for name in names}
    assert len(made) == len(drawn) == 12


def test_hosts_and_cutouts_are_held_out_together(tree, run):
    kept, held = (open_synthesis(run(), tree, out) for out in (False, True))
    assert not {h.image for h in kept.hosts} & {h.image for h in held.hosts}
    for kind, cutouts in kept.cutouts.kinds.items():
        assert not {c.name for c in cutouts} & {c.name for c in held.cutouts.kinds[kind]}
    names = {h.image.stem for s in (kept, held) for h in s.hosts}
    assert "001" not in names
    assert "002" not in names
    assert "003" in names


def test_sources_share_by_weight(tree, run):
    synthesis = open_synthesis(run(), tree)
    shares = np.diff(synthesis.host_shares, prepend=0)
    labelled = sum(s for s, h in zip(shares, synthesis.hosts, strict=True) if h.labels is not None)
    assert labelled == pytest.approx(2 / 3)


def test_the_held_out_samples_are_the_same_every_time(tree, run):
    feed = open_occlusion_feed(run(), tree, CPU, held_out=True)
    first, again = ([b.image.clone() for b in feed.every_face(4)] for _ in range(2))
    assert sum(map(len, first)) == 6
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"left_out": {"plain": "nowhere.txt"}}, r"nowhere\.txt: cannot be read as a list of names"),
        ({"left_out": {"other": "left_out.txt"}}, "'other' is none of the sources plain, labelled"),
        ({"samples": 0}, "samples = 0"),
        ({"holdout_every": 1}, "holdout_every = 1"),
        ({"cutouts": {}}, r"shares\.hand = .* no cut-out of this kind"),
        ({"textures": "nothing"}, "no pictures"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(tree, run, changes, said):
    with pytest.raises(UsageError, match=said):
        open_occlusion_feed(run(**changes), tree, CPU)


def test_kinds_without_a_share_need_no_cutouts(tree, run):
    shares = ShareConfig(hand=0, mask=0, sunglasses=1, object=0)
    feed = open_occlusion_feed(run(cutouts={}, shares=shares), tree, CPU)
    assert len(steps(feed)) == 4


def test_a_broken_host_is_named_by_worker_and_here(tree, run, tmp_path):
    (tmp_path / "plain").mkdir()
    for i in range(6):
        (tmp_path / f"plain/{i}.png").write_bytes(b"no picture")
    for name in ("cutouts", "textures"):
        (tmp_path / name).symlink_to(tree / name)
    broken = run(left_out={})
    for config in (broken, replace(broken, feed=run("disk", 1).feed)):
        config = replace(config, sources={"plain": broken.sources["plain"]})
        with pytest.raises(UsageError, match=r"plain/\d\.png: not an image"):
            steps(open_occlusion_feed(config, tmp_path, CPU))
