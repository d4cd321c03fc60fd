"""The inputs to compare: faces spread over the bins of masks, and those made on purpose."""

import numpy as np
import pytest

from showface.evaluation.faces import mask_bins
from showface.evaluation.parity.cases import face_cases, generated_cases
from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

SIDE = 256


def test_cases_are_made_from_the_first_face_that_has_a_hole(chain_inputs):
    image, mask = chain_inputs[0], chain_inputs[1].copy()
    mask[0] = 0
    cases = {case.name: case for case in generated_cases(image, mask, 1)}
    assert (cases["category-hidden"].given["semantic_map"] != cases["category-absent"].given["semantic_map"]).any()
    np.testing.assert_array_equal(cases["empty-mask"].inputs["image"], image[1:2])


def test_the_cases_made_on_purpose_are_what_their_names_say(chain_inputs):
    cases = {case.name: case for case in generated_cases(*chain_inputs, 4)}
    assert len(cases) == 10
    for case in cases.values():
        assert case.inputs["image"].dtype == case.inputs["mask"].dtype == np.float32
        assert np.abs(case.inputs["image"]).max() <= 1
        hidden = np.broadcast_to(case.inputs["mask"] > 0, case.inputs["image"].shape)
        assert not case.inputs["image"][hidden].any()
    assert cases["empty-mask"].inputs["mask"].sum() == 0
    assert cases["full-mask"].inputs["mask"].min() == 1
    assert cases["one-pixel-holes"].inputs["mask"].sum() == 4
    assert cases["constant-image"].inputs["image"].max() == 0.25
    assert set(np.unique(cases["extreme-contrast"].inputs["image"])) == {-1.0, 0.0, 1.0}
    assert [len(cases[f"batch-{n}"].inputs["image"]) for n in (1, 2, 4)] == [1, 2, 4]
    labels = cases["category-absent"].given["semantic_map"]
    assert set(np.unique(labels)) == {CATEGORIES.index("background"), CATEGORIES.index("skin")}
    case = cases["category-hidden"]
    nose = case.given["semantic_map"] == CATEGORIES.index("nose")
    np.testing.assert_array_equal(nose, case.inputs["mask"][:, 0] > 0)
    assert len({case.digest for case in cases.values()}) == len(cases)


def test_faces_spread_over_the_bins_of_masks(face_folder, tmp_path):
    images, masks = face_folder
    bins = tmp_path / "bins"
    for name, files in (("00-10", "ab"), ("10-20", "c")):
        (bins / name).mkdir(parents=True)
        for stem in files:
            (bins / name / f"{stem}.png").write_bytes((masks / f"{stem}.png").read_bytes())
    assert [[path.name for path in row] for row in mask_bins(bins)] == [["a.png", "b.png"], ["c.png"]]
    spread, by_stem = list(face_cases(images, bins, SIDE)), list(face_cases(images, masks, SIDE))
    assert [case.name for case in spread] == ["a.png", "b.jpg", "c.png"]
    np.testing.assert_array_equal(spread[0].inputs["mask"], by_stem[0].inputs["mask"])  # bin 0, its first mask
    np.testing.assert_array_equal(spread[1].inputs["mask"], by_stem[2].inputs["mask"])  # bin 1, its only mask
    np.testing.assert_array_equal(spread[2].inputs["mask"], by_stem[1].inputs["mask"])  # bin 0 again, its second
    assert len(list(face_cases(images, masks, SIDE, 2))) == 2
    (bins / "20-30").mkdir()
    with pytest.raises(UsageError, match="20-30"):
        mask_bins(bins)
