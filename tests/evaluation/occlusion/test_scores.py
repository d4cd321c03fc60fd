"""Figures of an occluder against plain numpy, on pictures whose answer is known."""

import numpy as np
import pytest
from fixtures.occluder import cover
from PIL import Image

from showface.evaluation.occlusion.scores import (
    OccludedFace,
    bootstrap,
    false_alarms,
    read_groups,
    read_labelled,
    score_face,
    skin_lightness,
    summarise,
)
from showface.runtime.errors import UsageError
from showface.runtime.faces.occlusion import Occlusion, face_zone, grown

S = 256


def answer(core, margin=6):
    """Return a finder that always finds ``core``."""
    parts = core.astype(np.int32)
    return lambda rgb: Occlusion(grown(core, margin), parts, (0.9,) if core.any() else (), 0.0)


def block(top, left, height, width):
    mask = np.zeros((S, S), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_scores_are_those_of_the_definition():
    label = np.zeros((S, S), np.uint8)
    label[140:200, 80:180] = 255
    label[150:160, 80:100] = 128
    core = block(150, 90, 60, 100)
    score = score_face(OccludedFace("a", "mask", np.zeros((S, S, 3), np.uint8), label), answer(core))
    zone = face_zone(S)
    counted, truth = zone & (label != 128), zone & (label == 255)
    assert score.iou == pytest.approx((core & truth).sum() / ((core & counted) | truth).sum())
    assert score.recall == pytest.approx((core & truth).sum() / truth.sum())
    hole = grown(core, 6)
    assert score.gone == pytest.approx((hole & truth).sum() / truth.sum())
    assert score.gone > score.recall
    assert score.extra == pytest.approx((hole & (label == 0)).sum() / S**2)


def test_a_face_without_an_occluder_in_the_zone_has_no_share():
    label = np.zeros((S, S), np.uint8)
    score = score_face(OccludedFace("a", "none", np.zeros((S, S, 3), np.uint8), label), answer(block(0, 0, 0, 0)))
    assert np.isnan(score.iou)
    assert score.extra == 0


def test_kinds_are_summed_up_with_their_intervals():
    truth = np.zeros((S, S), np.uint8)
    truth[140:200, 100:160] = 255
    face = OccludedFace("a", "hand", np.zeros((S, S, 3), np.uint8), truth)
    good = score_face(face, answer(truth > 0))
    none = score_face(OccludedFace("b", "cup", face.rgb, truth), answer(block(0, 0, 0, 0)))
    rows = summarise([good, none, good])
    assert list(rows) == ["cup", "hand", "all"]
    assert rows["hand"]["iou"] == pytest.approx((1, 1, 1))
    assert rows["cup"]["recall"][0] == 0
    assert rows["all"]["faces"] == 3
    assert rows["all"]["iou"][0] == pytest.approx(2 / 3)


def test_the_bootstrap_covers_the_mean():
    values = np.random.default_rng(1).normal(0.7, 0.1, 50)
    mean, low, high = bootstrap([*values, float("nan")])
    assert mean == pytest.approx(values.mean())
    error = values.std() / np.sqrt(50)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.4 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.4 * error)
    assert bootstrap([0.3, 0.4]) == bootstrap([0.3, 0.4])


def test_false_alarms_are_counted_by_lightness_and_group(tmp_path):
    tones = (30, 40, 50, 110, 120, 130, 200, 210, 220)
    for k, tone in enumerate(tones):
        Image.fromarray(np.full((64, 64, 3), tone, np.uint8)).save(tmp_path / f"{k}.png")
    paths = sorted(tmp_path.glob("*.png"))

    def finds_on_dark(rgb):
        return answer(block(120, 100, 40, 40) if rgb.mean() < 45 else block(0, 0, 0, 0))(rgb)

    rates, worst = false_alarms(paths, finds_on_dark, S, {"0": ["beard"], "5": ["beard"]})
    assert rates["all"] == {"faces": 9, "alarms": 2, "rate": pytest.approx(2 / 9)}
    assert rates["darkest third"]["alarms"] == 2
    assert rates["lightest third"] == {"faces": 3, "alarms": 0, "rate": 0.0}
    assert rates["beard"] == {"faces": 2, "alarms": 1, "rate": 0.5}
    assert [name for name, _ in worst] == ["0.png", "1.png"]


def test_lightness_is_that_of_the_cheeks():
    face = np.full((S, S, 3), 20, np.uint8)
    for x in (0.34, 0.66):
        face[int(0.6 * S) : int(0.7 * S), int((x - 0.05) * S) : int((x + 0.05) * S)] = 119
    assert skin_lightness(face) == pytest.approx(50.0, abs=0.6)  # sRGB 119 is CIE L 50


def test_labelled_pictures_and_their_groups_are_read(tmp_path, faces):
    folder = tmp_path / "set"
    folder.mkdir()
    covered, where = cover(faces[0][0])
    Image.fromarray(covered).save(folder / "a.jpg", quality=95)
    Image.fromarray(where.astype(np.uint8) * 255).save(folder / "a.png")
    Image.fromarray(where.astype(np.uint8) * 255).save(folder / "alone.png")
    (tmp_path / "groups.csv").write_text("set/a,cup\n7,beard\n")
    groups = read_groups(tmp_path / "groups.csv")
    (found,) = read_labelled(folder, S, None, groups)
    assert (found.kind, found.name) == ("cup", "set/a")
    np.testing.assert_array_equal(found.label == 255, where)
    (folder / "a.jpg").unlink()
    with pytest.raises(UsageError, match="no labels"):
        read_labelled(folder, S, None, groups)
    (tmp_path / "groups.csv").write_text("one\n")
    with pytest.raises(UsageError, match="line 1 has 1 fields"):
        read_groups(tmp_path / "groups.csv")
