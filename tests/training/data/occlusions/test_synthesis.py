"""What a sample's labels say is what was pasted; what resembles an occlusion has none."""

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from showface.runtime.errors import UsageError
from showface.training.data.occlusions import drawn, negatives
from showface.training.data.occlusions import synthesis as synthesis_module
from showface.training.data.occlusions.feed import open_synthesis
from showface.training.data.occlusions.kinds import KINDS, Supply
from showface.training.data.occlusions.layers import (
    COVERED,
    FACE,
    FREE,
    UNCOUNTED,
    Layer,
    Scene,
    ellipse,
    paste,
    placed,
    recoloured,
)
from showface.training.data.occlusions.synthesis import share_table
from showface.training.occluder.config import ShareConfig

POSITIVE = ("hand", "mask", "sunglasses", "object", "microphone", "cloth", "shape")
NEGATIVE = ("nothing", "light", "paint", "other_face", "eyeglasses", "hat", "outside")
S = 128


@pytest.fixture(scope="module")
def synthesis(tree, run):
    return open_synthesis(run(network=S), tree)


@pytest.mark.parametrize("kind", POSITIVE)
def test_every_occlusion_is_labelled_and_lies_over_the_face(synthesis, kind):
    over = 0
    for seed in range(12):
        picture, labels, drawn_kind = synthesis.sample(np.random.default_rng(seed), kind)
        assert drawn_kind == kind
        assert picture.shape == (S, S, 3)
        assert picture.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {FREE, COVERED, UNCOUNTED}
        over += bool(((labels == COVERED) & ellipse(S, FACE)).any())
    assert over >= 10


def test_a_second_thing_is_no_hand_where_there_are_none(tree, run, monkeypatch):
    monkeypatch.setattr(synthesis_module, "SECOND", 1.0)
    shares = replace(ShareConfig(*(0.0,) * 12), cloth=1.0)
    made = open_synthesis(run(cutouts={}, shares=shares), tree)
    for seed in range(24):
        assert made.sample(np.random.default_rng(seed))[2] == "cloth"


@pytest.mark.parametrize("kind", NEGATIVE)
def test_nothing_is_labelled_covered_where_nothing_covers(synthesis, kind):
    for seed in range(12):
        _, labels, _ = synthesis.sample(np.random.default_rng(seed), kind)
        assert not (labels == COVERED).any()


@pytest.mark.parametrize("kind", ["light", "paint", "other_face"])
def test_negatives_do_change_the_picture(synthesis, kind):
    """A negative that leaves the face as it was would teach nothing."""
    rng, other = np.random.default_rng(1), np.random.default_rng(2).random((S, S, 3), np.float32)
    scene = Scene(np.full((S, S, 3), 0.5, np.float32), np.zeros((S, S), np.uint8))
    before = scene.picture.copy()
    if kind == "other_face":
        negatives.other_face(rng, scene, other)
    else:
        getattr(negatives, kind)(rng, scene)
    assert (np.abs(scene.picture - before).max(axis=2) > 0.02).mean() > 0.0005


@pytest.mark.parametrize(("kind", "rows"), [("eyeglasses", (0.35, 0.6)), ("hat", (0.0, 0.4))])
def test_what_is_worn_lies_where_it_is_worn(synthesis, kind, rows):
    supply = Supply(synthesis.cutouts, (), lambda: np.zeros((S, S, 3), np.float32))
    scene = Scene(np.full((S, S, 3), 0.5, np.float32), np.zeros((S, S), np.uint8))
    KINDS[kind](np.random.default_rng(3), scene, supply)
    changed = np.abs(scene.picture - 0.5).max(axis=2)
    inside = changed[int(rows[0] * S) : int(rows[1] * S)].sum() / changed.sum()
    assert changed.max() > 0.1
    assert inside > 0.8


def test_one_sees_through_clear_lenses_and_not_through_sunglasses():
    reflected = np.zeros((S, S, 3), np.float32)
    for seed in range(8):
        clear, dark = (drawn.glasses(np.random.default_rng(seed), S, reflected, each).alpha for each in (True, False))
        eyes = [(round(y * S), round(x * S)) for x, y in drawn.EYES]
        assert max(clear[eye] for eye in eyes) < 0.2
        assert min(dark[eye] for eye in eyes) > 0.5


def test_sunglasses_cover_the_eyes_and_masks_the_mouth(synthesis):
    eyes, mouths = 0, 0
    for seed in range(20):
        labels = synthesis.sample(np.random.default_rng(seed), "sunglasses")[1]
        eyes += all(labels[int(y * S), int(x * S)] == COVERED for x, y in drawn.EYES)
        labels = synthesis.sample(np.random.default_rng(seed), "mask")[1]
        mouths += labels[int(0.76 * S), S // 2] == COVERED
    assert eyes >= 16
    assert mouths >= 16


def test_a_sample_is_decided_by_its_generator(synthesis):
    first, again, other = (synthesis.sample(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("brightness", "label"), [(20, UNCOUNTED), (140, FREE)])
def test_dark_eyeglasses_of_a_host_are_not_counted_and_clear_ones_are_none(tree, run, tmp_path, brightness, label):
    for part in ("images", "labels"):
        (tmp_path / "labelled" / part).mkdir(parents=True)
    labels = np.ones((64, 64), np.uint8)
    labels[28:34, 18:46] = 3
    face = np.full((64, 64, 3), 150, np.uint8)
    face[labels == 3] = brightness
    for k in range(6):
        cv2.imwrite(str(tmp_path / f"labelled/images/{k}.png"), face)
        cv2.imwrite(str(tmp_path / f"labelled/labels/{k}.png"), labels)
    for name in ("cutouts", "textures"):
        (tmp_path / name).symlink_to(tree / name)
    config = run(network=S, left_out={})
    synthesis = open_synthesis(replace(config, sources={"labelled": config.sources["labelled"]}), tmp_path)
    found = synthesis.sample(np.random.default_rng(0), "nothing")[1]
    assert found[31 * S // 64, 32 * S // 64] == label
    assert found[5, 5] == FREE


def test_paste_composes_by_alpha_and_labels_from_one_half():
    """Against the compositing equation, with an edge that is soft and neither light nor shadow."""
    rng = np.random.default_rng(0)
    scene = Scene(np.full((S, S, 3), 0.5, np.float32), np.zeros((S, S), np.uint8))
    alpha = np.zeros((S, S), np.float32)
    alpha[30:90, 30:90], alpha[100:120, 30:90], alpha[5:20, 30:90] = 1.0, 0.3, 0.05
    paste(rng, scene, Layer(np.full((S, S, 3), 0.9, np.float32), alpha), shadow=0.0)
    middle = scene.picture[60, 60]
    assert np.ptp(middle) < 1e-6
    assert 0.9 * 0.85 * 0.8 <= middle[0] <= 1.0  # gain and ramp of the light
    assert scene.labels[60, 60] == COVERED
    assert scene.labels[110, 60] == UNCOUNTED
    assert scene.labels[12, 60] == FREE
    assert np.allclose(scene.picture[:, :20], 0.5, atol=1e-3)
    inside = scene.picture[60, 60] - 0.5
    translucent = scene.picture[110, 60] - 0.5
    assert translucent[0] == pytest.approx(0.3 * inside[0], rel=0.25)


def test_a_placed_cutout_keeps_its_size_and_place():
    rgba = np.full((20, 40, 4), 255, np.uint8)
    layer = placed(rgba, (70.0, 50.0), 60.0, 0.0, False, S)
    rows, columns = np.nonzero(layer.alpha > 0.5)
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 70), abs=0.6)
    assert np.ptp(columns) == pytest.approx(60, abs=2)
    assert np.ptp(rows) == pytest.approx(30, abs=2)
    upright = placed(rgba, (70.0, 50.0), 60.0, np.pi / 2, True, S)
    rows, columns = np.nonzero(upright.alpha > 0.5)
    assert np.ptp(rows) == pytest.approx(60, abs=2)


def test_recolouring_moves_the_mean_colour_by_its_strength():
    layer = Layer(np.full((S, S, 3), 0.3, np.float32), np.ones((S, S), np.float32))
    target = np.asarray((80.0, 20.0, 10.0), np.float32)
    before = cv2.cvtColor(layer.colour, cv2.COLOR_RGB2LAB).reshape(-1, 3).mean(axis=0)
    moved = recoloured(layer, target, None, np.asarray((0.5, 1.0, 0.0), np.float32))
    after = cv2.cvtColor(moved.colour, cv2.COLOR_RGB2LAB).reshape(-1, 3).mean(axis=0)
    assert after == pytest.approx((before + target) * (0.5, 0, 0) + target * (0, 1, 0) + before * (0, 0, 1), abs=0.6)


def test_every_kind_is_drawn_by_its_share(synthesis):
    names, shares = share_table(synthesis.config.shares)
    assert names == list(asdict(ShareConfig()))
    assert shares.sum() == pytest.approx(1)
    assert sum(shares[names.index(kind)] for kind in NEGATIVE) == pytest.approx(0.23, abs=0.03)


@pytest.mark.parametrize(
    ("shares", "said"),
    [(replace(ShareConfig(), hand=-1.0), "not negative"), (ShareConfig(*(0.0,) * 14), "all are 0")],
)
def test_shares_that_are_none_are_refused(shares, said):
    with pytest.raises(UsageError, match=said):
        share_table(shares)
