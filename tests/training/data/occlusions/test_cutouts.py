"""Cut-outs come from any folder of transparent pictures; whole things are held out, not views of them."""

import cv2
import numpy as np
import pytest

from showface.runtime.errors import UsageError
from showface.training.data.occlusions.cutouts import LONGEST, read_cutout, read_cutouts
from showface.training.occluder.config import CutoutConfig, OcclusionConfig


def disc(side, colour=(30, 160, 90)):
    """Return a disc as BGRA; what is transparent is magenta."""
    rgba = np.empty((side, side, 4), np.uint8)
    rgba[..., :3] = (255, 0, 255)
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), side // 3, 255, -1)
    rgba[alpha > 0, :3] = colour[::-1]
    rgba[..., 3] = alpha
    return rgba


def config(folder="things", **entry):
    return OcclusionConfig({"a": CutoutConfig(folder, "object", **entry)}, holdout_every=4)


def write(folder, names, side=24):
    folder.mkdir(exist_ok=True)
    for name in names:
        assert cv2.imwrite(str(folder / f"{name}.png"), disc(side))


def names(cutouts):
    return {cutout.name for found in cutouts.kinds.values() for cutout in found}


def test_a_cutout_is_cut_to_what_shows_and_keeps_its_colour_when_it_shrinks(tmp_path):
    path = tmp_path / "large.png"
    assert cv2.imwrite(str(path), disc(3 * LONGEST))
    rgba = read_cutout(path)
    assert max(rgba.shape[:2]) == LONGEST
    shown = rgba[rgba[..., 3] > 0]
    assert np.abs(shown[:, :3].astype(int) - (30, 160, 90)).max() <= 1  # no magenta bleeds into the edge
    assert rgba[..., 3].mean() / 255 == pytest.approx(np.pi / 4, abs=0.01)


def test_training_and_held_out_things_are_disjoint_and_complete(tmp_path):
    files = [f"hand{i:02d}-1f3f{tone}" for i in range(12) for tone in "bc"] + ["mask_left", "mask_right", "mask"]
    write(tmp_path / "things", files)
    kept, held = (names(read_cutouts(config(), tmp_path, out)) for out in (False, True))
    assert kept | held == set(files)
    assert held
    assert not kept & held

    def thing(name):
        return name.split("-")[0].split("_")[0]

    assert not {thing(name) for name in kept} & {thing(name) for name in held}


def test_only_and_without_choose_by_the_beginning_of_a_name(tmp_path):
    write(tmp_path / "things", ["cup1", "cup2", "cup3", "cap1", "pen1"])
    chosen = [read_cutouts(config(only=("c",), without=("cap",)), tmp_path, out) for out in (False, True)]
    assert names(chosen[0]) | names(chosen[1]) == {"cup1", "cup2", "cup3"}


def test_folders_share_a_kind_by_their_weights_whatever_their_size(tmp_path):
    write(tmp_path / "few", ["a", "b"])
    write(tmp_path / "many", [f"m{i}" for i in range(40)])
    entries = {n: CutoutConfig(n, "object", w) for n, w in (("few", 3.0), ("many", 1.0))}
    cutouts = read_cutouts(OcclusionConfig(entries, holdout_every=50), tmp_path, False)
    rng = np.random.default_rng(0)
    drawn = [cutouts.draw(rng, "object").name for _ in range(2000)]
    assert sum(not name.startswith("m") for name in drawn) / 2000 == pytest.approx(0.75, abs=0.04)
    assert cutouts.draw(rng, "hand") is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no picture"), "not an image"),
        (lambda path: cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8)), "has no alpha channel"),
        (lambda path: cv2.imwrite(str(path), np.zeros((8, 8, 4), np.uint8)), "is transparent all over"),
    ],
)
def test_a_useless_picture_is_named(tmp_path, make, said):
    (tmp_path / "things").mkdir()
    make(tmp_path / "things/x.png")
    with pytest.raises(UsageError, match=rf"x\.png: {said}"):
        read_cutout(tmp_path / "things/x.png")


def test_an_empty_folder_is_named_with_its_key(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere: no cut-outs .* for occlusion\.cutouts\.a"):
        read_cutouts(config("nowhere"), tmp_path, False)
