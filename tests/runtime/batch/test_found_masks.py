"""``--mask-from occlusion`` on a folder: what is found is completed and noted, the rest is copied or left."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fixtures.occluder import cover
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Alignment, Options
from showface.runtime.batch.results_log import parse_result
from showface.runtime.batch.run import complete_folder
from showface.runtime.batch.sheets.review import doubt_of, find_masks, write_review
from showface.runtime.errors import UsageError
from showface.runtime.faces.align import TEMPLATE
from showface.runtime.faces.masks import MaskSource, mask_source
from showface.runtime.faces.occlusion import OcclusionSettings
from showface.runtime.inpainter import Inpainter

OCCLUSION = MaskSource("occlusion")
HUGE = {"centre": (128, 128), "axes": (120, 125)}


@pytest.fixture(scope="module")
def inpainter(green_bundle):
    return Inpainter.from_bundle(green_bundle, "cpu", 1)


@pytest.fixture
def images(tmp_path, faces):
    """One covered face, a clean one, and one that is covered nearly everywhere."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, face in (
        ("covered", cover(faces[0][0])[0]), ("clean", faces[1][0]), ("huge", cover(faces[0][0], **HUGE)[0])
    ):  # fmt: skip
        Image.fromarray(face).save(folder / f"{name}.png")
    return folder


def run(inpainter, images, output, masks=OCCLUSION, **options):
    output.mkdir(exist_ok=True)
    items = plan_items(images, output, None)
    results = complete_folder(items, inpainter, Options(masks, batch_size=2, **options), output / "results.jsonl")
    return {result.input: result for result in results}


def pixels(path):
    return np.asarray(Image.open(path))


def test_what_covers_a_face_is_completed_and_noted(inpainter, images, tmp_path, faces):
    results = run(inpainter, images, tmp_path / "out")
    where = cover(faces[0][0])[1]
    found = results["covered.png"]
    assert found.mask["from"] == "occlusion"
    assert found.mask["parts"] == 1
    assert found.mask["confidence"] > 0.95
    assert not found.mask["uncertain"]
    assert found.mask["area"] == pytest.approx(found.hole_ratio, abs=1e-4)
    assert where.mean() < found.hole_ratio < 1.6 * where.mean()
    before, after = pixels(images / "covered.png"), pixels(tmp_path / "out/covered.png")
    assert (before[where] != after[where]).any(axis=1).mean() > 0.99
    assert np.array_equal(before[:60], after[:60])
    line = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[0])
    assert line["mask"]["from"] == "occlusion"


def test_nothing_found_is_copied_and_too_much_is_left(inpainter, images, tmp_path):
    results = run(inpainter, images, tmp_path / "out")
    assert results["clean.png"].hole_ratio == 0
    assert results["clean.png"].mask["parts"] == 0
    huge = results["huge.png"].mask
    assert (huge["too_large"], huge["uncertain"], huge["parts"]) == (1, True, 0)
    assert huge["area"] > 0.5
    assert "more than 50%" in huge["doubts"][0]
    for name in ("clean.png", "huge.png"):
        assert (tmp_path / "out" / name).read_bytes() == (images / name).read_bytes()
    wide = replace(OCCLUSION, occlusion=OcclusionSettings(max_hole=1.0))
    assert run(inpainter, images, tmp_path / "wide", wide)["huge.png"].hole_ratio > 0.5


def test_a_second_run_skips_and_keeps_the_note_and_other_limits_do_not(inpainter, images, tmp_path):
    first = run(inpainter, images, tmp_path / "out")
    again = run(inpainter, images, tmp_path / "out")
    assert {r.status for r in again.values()} == {"skipped"}
    assert again["covered.png"].mask == first["covered.png"].mask
    for limits in (OcclusionSettings(threshold=0.4), OcclusionSettings(margin=9), OcclusionSettings(max_hole=0.4)):
        other = run(inpainter, images, tmp_path / "out", replace(OCCLUSION, occlusion=limits))
        assert other["covered.png"].status == "done"


def test_categories_join_what_is_found(inpainter, images, tmp_path):
    alone = run(inpainter, images, tmp_path / "a")["covered.png"].hole_ratio
    labels = np.unique(inpainter.parse(inpainter_image(images / "covered.png"))[0])
    from showface.runtime.stages import CATEGORIES

    both = replace(OCCLUSION, categories=(CATEGORIES[labels[0]],), occlusion=OcclusionSettings(max_hole=1.0))
    assert run(inpainter, images, tmp_path / "b", both)["covered.png"].hole_ratio > alone


def inpainter_image(path):
    from showface.runtime.faces.tensors import prepare

    face = pixels(path)
    return prepare(face, np.zeros(face.shape[:2], bool), 256, "face")[0][None]


def test_faces_of_a_picture_are_looked_at_one_by_one(inpainter, tmp_path, faces):
    """Two aligned faces side by side, one of them covered."""
    folder = tmp_path / "images"
    folder.mkdir()
    covered, where = cover(faces[0][0])
    Image.fromarray(np.concatenate([covered, faces[1][0]], axis=1)).save(folder / "two.png")
    marks = [(TEMPLATE * 256 + (256 * k, 0)).round(1).tolist() for k in range(2)]
    (tmp_path / "marks.json").write_text(json.dumps({"two.png": marks}))
    results = run(inpainter, folder, tmp_path / "out", alignment=Alignment(None, tmp_path / "marks.json"))
    result = results["two.png"]
    assert result.status == "done", result.error
    assert result.mask["parts"] == 1
    assert result.mask["area"] == pytest.approx(2 * result.hole_ratio, rel=0.1)
    before, after = pixels(folder / "two.png"), pixels(tmp_path / "out/two.png")
    assert (before[:, :256][where] != after[:, :256][where]).any(axis=1).mean() > 0.95
    assert np.array_equal(before[:, 256:], after[:, 256:])


def test_a_completion_that_changes_nothing_is_uncertain(inpainter, images, tmp_path, monkeypatch):
    seen = inpainter_image(images / "covered.png")
    (images / "clean.png").unlink()
    (images / "huge.png").unlink()
    monkeypatch.setattr(inpainter, "submit", lambda images, masks: None)
    monkeypatch.setattr(inpainter, "collect", lambda ticket: np.stack([seen[0]]))
    note = run(inpainter, images, tmp_path / "out")["covered.png"].mask
    assert note["uncertain"]
    assert "looks the same" in note["doubts"][-1]


def test_other_sources_say_where_their_masks_come_from(inpainter, images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in images.glob("*.png"):
        Image.fromarray(np.zeros((256, 256), np.uint8)).save(masks / path.name)
    results = run(inpainter, images, tmp_path / "out", MaskSource("file", masks))
    assert {json.dumps(r.mask) for r in results.values()} == {'{"from": "file"}'}


def test_a_bundle_without_an_occluder_says_so(narrow_bundle):
    with pytest.raises(UsageError, match="this bundle has no occluder"):
        Inpainter.from_bundle(narrow_bundle, "cpu", 1).occlusion_probability(np.zeros((1, 3, 256, 256), np.float32))


def test_the_source_is_read_from_the_command_line():
    plain = mask_source("occlusion", None, 4)
    assert (plain.kind, plain.categories, plain.occlusion.margin, plain.found) == ("occlusion", (), 4, True)
    both = mask_source("occlusion,class:hat,eyeglasses", None)
    assert both.categories == ("eyeglasses", "hat")
    assert both.describe() != plain.describe()
    for wrong in ("occlusions", "occlusion,hat", "occlusion:hat"):
        with pytest.raises(UsageError, match="occlusion"):
            mask_source(wrong, None)


def test_a_line_with_another_kind_of_note_is_passed_over():
    line = {"input": "a.png", "output": "a.png", "status": "done", "mask": {"from": "file"}}
    assert parse_result(json.dumps(line)).mask == {"from": "file"}
    assert parse_result(json.dumps({**line, "mask": "file"})) is None
    del line["mask"]
    assert parse_result(json.dumps(line)).mask is None  # of an earlier version


def review(inpainter, images, folder, **options):
    items = plan_items(images, folder, None, ".png", True)
    folder.mkdir(exist_ok=True)
    results = list(find_masks(items, inpainter, Options(OCCLUSION, save_masks=folder, **options)))
    return items, {result.input: result for result in results}


def test_masks_are_written_for_review_and_completed_from_after_an_edit(inpainter, images, tmp_path):
    folder = tmp_path / "masks"
    _, results = review(inpainter, images, folder)
    assert {r.status for r in results.values()} == {"done"}
    hole = pixels(folder / "covered.png") > 0
    assert hole.mean() == pytest.approx(results["covered.png"].hole_ratio)
    assert not pixels(folder / "clean.png").any()
    straight = run(inpainter, images, tmp_path / "straight")
    assert straight["covered.png"].hole_ratio == results["covered.png"].hole_ratio
    edited = np.zeros((256, 256), np.uint8)
    edited[100:140, 100:140] = 255
    Image.fromarray(edited).save(folder / "clean.png")
    completed = run(inpainter, images, tmp_path / "out", MaskSource("file", folder))
    assert completed["clean.png"].hole_ratio == pytest.approx((edited > 0).mean())
    before, after = pixels(images / "clean.png"), pixels(tmp_path / "out/clean.png")
    assert np.array_equal(before[edited == 0], after[edited == 0])
    assert np.array_equal(pixels(tmp_path / "out/covered.png"), pixels(tmp_path / "straight/covered.png"))


def test_an_edited_mask_is_not_overwritten(inpainter, images, tmp_path):
    folder = tmp_path / "masks"
    review(inpainter, images, folder)
    edited = np.full((256, 256), 255, np.uint8)
    Image.fromarray(edited).save(folder / "clean.png")
    _, results = review(inpainter, images, folder)
    assert results["covered.png"].status == "done"  # untouched since it was found
    assert results["clean.png"].status == "failed"
    assert "overwrite" in results["clean.png"].error
    assert (pixels(folder / "clean.png") == 255).all()
    _, results = review(inpainter, images, folder, overwrite=True)
    assert results["clean.png"].status == "done"
    assert not pixels(folder / "clean.png").any()


def test_the_sheet_shows_the_doubtful_ones_first(inpainter, images, tmp_path, faces):
    from showface.runtime.batch.sheets.contact_sheet import tile

    folder = tmp_path / "masks"
    items, results = review(inpainter, images, folder)
    assert doubt_of(results["huge.png"]) > 1 > doubt_of(results["covered.png"]) >= doubt_of(results["clean.png"])
    write_review(tmp_path / "sheet.png", items, list(results.values()))
    sheet = pixels(tmp_path / "sheet.png")
    np.testing.assert_array_equal(sheet[:160, :160], tile(pixels(images / "huge.png")))  # left as it is: no red
    clean, covered = sheet[:160, 160:320], sheet[:160, 320:480].astype(int)  # equally certain: by name
    np.testing.assert_array_equal(clean, tile(faces[1][0]))
    red = covered[103, 80] - tile(pixels(images / "covered.png"))[103, 80].astype(int)
    assert red[0] > 50
    assert red[1] < -50
