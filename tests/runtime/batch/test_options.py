"""Output format and quality, metadata, masks of categories, saved masks, and the limits on failures."""

import errno
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options, suffix_of_format
from showface.runtime.batch.run import complete_folder
from showface.runtime.errors import DiskFullError, UsageError
from showface.runtime.faces.category_mask import category_region
from showface.runtime.faces.masks import MaskSource, mask_source
from showface.runtime.faces.tensors import prepare
from showface.runtime.files import write_flushed
from showface.runtime.images.codec import decode_photo
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import CATEGORIES

ORIENTATION, DESCRIPTION, IFD0_THUMBNAIL = 0x0112, 0x010E, 0x0201


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


@pytest.fixture
def run(inpainter, face_folder, tmp_path):
    """Return a function that completes the folder and returns the results by name; keywords go to the options."""
    images, masks = face_folder

    def start(suffix=None, masks_from=None, stopped=lambda: False, write=write_flushed, **options):
        source = masks_from or MaskSource("file", masks)
        jobs = plan_items(images, tmp_path / "out", masks, suffix, "save_masks" in options)
        log = tmp_path / "out" / "results.jsonl"
        results = complete_folder(jobs, inpainter, Options(source, **options), log, stopped, write)
        return {result.input: result for result in results}

    return start


def statuses(results):
    return {name: result.status for name, result in results.items()}


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_all_outputs_get_the_format_that_was_asked_for(run, tmp_path, name, kind):
    suffix = suffix_of_format(name)
    results = run(suffix)
    assert {result.output for result in results.values()} == {f"{stem}{suffix}" for stem in "abc"}
    for stem in "abc":
        assert Image.open(tmp_path / "out" / f"{stem}{suffix}").format == kind
    assert set(statuses(run(suffix)).values()) == {"skipped"}


def test_two_inputs_of_one_output_name_do_not_replace_each_other(run, face_folder):
    shutil.copy(face_folder[0] / "b.jpg", face_folder[0] / "a.jpg")
    results = run(".png")
    assert [name for name, result in results.items() if result.status == "failed"] == ["a.png"]
    assert "same file as a.jpg" in results["a.png"].error


def test_an_unknown_format_is_refused():
    assert suffix_of_format("same") is None
    with pytest.raises(UsageError, match="gif is not written"):
        suffix_of_format("gif")


def test_quality_decides_the_size_and_is_part_of_the_key(run, tmp_path):
    run()
    fine = (tmp_path / "out" / "b.jpg").stat().st_size
    assert set(statuses(run(quality=30)).values()) == {"done"}
    assert (tmp_path / "out" / "b.jpg").stat().st_size < fine / 2
    assert set(statuses(run(quality=30)).values()) == {"skipped"}


def exif_block(orientation):
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = orientation, "a face"
    exif.get_ifd(0x8769)[0x927C] = b"maker's notes with offsets"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("deep", [False, True])
def test_exif_and_profile_are_kept_and_the_picture_is_upright(run, face_folder, tmp_path, faces, kind, deep):
    if deep and kind != "PNG":
        pytest.skip("holds 8 bits")
    images, masks = face_folder
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    face = faces[0][0][..., 0].astype(np.uint16) * 257 if deep else faces[0][0]
    if deep:
        profile = profile[:16] + b"GRAY" + profile[20:]
    name = f"x.{kind.lower()}"
    Image.fromarray(face).save(images / name, kind, exif=exif_block(6), icc_profile=profile)
    shutil.copy(masks / "a.png", masks / "x.png")
    assert run()[name].status == "done"
    with Image.open(tmp_path / "out" / name) as written:
        written.load()
        assert written.getexif()[ORIENTATION] == 1
        assert written.getexif()[DESCRIPTION] == "a face"
        assert written.getexif().get_ifd(0x8769)[0x927C] == b"maker's notes with offsets"
        assert written.getexif().get_ifd(0x8825)[1] == "N"
        assert written.info["icc_profile"] == profile
        assert (written.mode == "I;16") == deep
    photo = decode_photo((tmp_path / "out" / name).read_bytes(), name)
    mask = np.asarray(Image.open(masks / "x.png")) > 0
    if kind == "PNG":
        np.testing.assert_array_equal(photo.pixels[~mask], np.rot90(face, -1)[~mask])


def test_the_thumbnail_of_the_face_as_it_was_is_gone():
    small = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(small, "JPEG")
    directory = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\x1a"
    offset = 26 + 2 + 24 + 4
    second = b"\0\x02" + b"\x02\x01\0\x04\0\0\0\x01" + offset.to_bytes(4, "big")
    second += b"\x02\x02\0\x04\0\0\0\x01" + len(small.getvalue()).to_bytes(4, "big") + bytes(4)
    data = io.BytesIO()
    block = b"Exif\0\0" + directory + second + small.getvalue()
    Image.new("RGB", (64, 64), "blue").save(data, "JPEG", exif=block)
    with Image.open(io.BytesIO(data.getvalue())) as image:
        assert IFD0_THUMBNAIL in image.getexif().get_ifd(ExifTags.IFD.IFD1)
    exif, kept = Image.Exif(), decode_photo(data.getvalue(), "x").exif
    assert len(kept) == len(block) - 6
    assert small.getvalue()[100:110] not in kept
    exif.load(b"Exif\0\0" + kept)
    assert exif[ORIENTATION] == 1
    assert not exif.get_ifd(ExifTags.IFD.IFD1)


def test_the_region_of_a_category_is_grown_by_the_margin():
    semantic_map = np.zeros((64, 64), np.int32)
    semantic_map[20:30, 20:40] = CATEGORIES.index("eyeglasses")
    semantic_map[50:55, 5:9] = CATEGORIES.index("hat")
    semantic_map[40, 40] = CATEGORIES.index("nose")
    exact = category_region(semantic_map, ("eyeglasses", "hat"), 0)[0]
    np.testing.assert_array_equal(exact, np.isin(semantic_map, [3, 11]))
    grown = category_region(semantic_map, ("eyeglasses", "hat"), 4)[0]
    distance = cv2.distanceTransform((~exact).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert grown[distance <= 3.5].all()
    assert not grown[distance > 5].any()


def test_what_the_parser_sees_is_completed_and_saved(run, inpainter, face_folder, tmp_path, faces):
    face = faces[0][0]
    image, _ = prepare(face, np.zeros((256, 256), np.bool_), 256, "a")
    seen = inpainter.parse(image[None])[0]
    name = CATEGORIES[np.bincount(seen.ravel()).argmax()]
    source = mask_source(f"class:{name}", None, 2)
    results = run(masks_from=source, save_masks=tmp_path / "saved")
    saved = np.asarray(Image.open(tmp_path / "saved" / "a.png"))
    assert set(np.unique(saved)) <= {0, 255}
    np.testing.assert_array_equal(saved > 0, category_region(seen, (name,), 2, 0.003)[0])
    assert results["a.png"].hole_ratio == pytest.approx((saved > 0).mean())
    written = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(written[saved == 0], face[saved == 0])
    assert set(statuses(run(masks_from=source, save_masks=tmp_path / "saved")).values()) == {"skipped"}
    (tmp_path / "saved" / "b.png").unlink()
    assert statuses(run(masks_from=source, save_masks=tmp_path / "saved"))["b.jpg"] == "done"
    assert (tmp_path / "saved" / "b.png").exists()
    assert set(statuses(run(masks_from=mask_source(f"class:{name}", None, 3))).values()) == {"done"}


def test_an_unknown_category_is_refused():
    with pytest.raises(UsageError, match="'glasses' is no category; known: background, skin"):
        mask_source("class:eyeglasses,glasses", None)


def test_a_foreign_mask_is_not_overwritten(run, tmp_path):
    (tmp_path / "saved").mkdir()
    Image.new("L", (256, 256)).save(tmp_path / "saved" / "c.png")
    before = (tmp_path / "saved" / "c.png").read_bytes()
    results = run(save_masks=tmp_path / "saved")
    assert results["c.png"].status == "failed"
    assert "pass overwrite=True" in results["c.png"].error
    assert (tmp_path / "saved" / "c.png").read_bytes() == before
    run()  # explains the output, and not the mask
    assert statuses(run(save_masks=tmp_path / "saved"))["c.png"] == "failed"
    assert (tmp_path / "saved" / "c.png").read_bytes() == before
    assert set(statuses(run(save_masks=tmp_path / "saved", overwrite=True)).values()) <= {"done", "skipped"}
    assert (np.asarray(Image.open(tmp_path / "saved" / "c.png")) > 0).any()


def test_a_mask_that_a_run_saved_is_known_again_and_follows_the_hole(run, face_folder, tmp_path):
    run(save_masks=tmp_path / "saved")
    shutil.copy(face_folder[1] / "b.png", face_folder[1] / "a.png")
    assert statuses(run(save_masks=tmp_path / "saved")) == {"a.png": "done", "b.jpg": "skipped", "c.png": "skipped"}
    hole = np.asarray(Image.open(face_folder[1] / "b.png")) > 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "saved" / "a.png")) > 0, hole)
    Image.fromarray(hole).save(tmp_path / "saved" / "b.png")  # the same hole, edited by hand
    results = run(save_masks=tmp_path / "saved")
    assert statuses(results) == {"a.png": "skipped", "b.jpg": "failed", "c.png": "skipped"}
    assert "was not saved by a run" in results["b.jpg"].error


def test_a_disk_that_is_full_of_masks_ends_the_run(run, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match="saved: No space left on device; make room"):
        run(save_masks=tmp_path / "saved", write=full)
    assert (tmp_path / "out" / "results.jsonl").read_text() == ""


def test_saved_masks_give_the_same_result_again(run, inpainter, face_folder, tmp_path):
    run(save_masks=tmp_path / "saved")
    jobs = plan_items(face_folder[0], tmp_path / "again", tmp_path / "saved")
    options = Options(MaskSource("file", tmp_path / "saved"))
    assert {r.status for r in complete_folder(jobs, inpainter, options, tmp_path / "again" / "results.jsonl")} == {
        "done"
    }
    for name in ("a.png", "b.jpg", "c.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_results_are_complete_lines(run, tmp_path):
    run()
    names = {"input", "output", "status", "error", "hole_ratio", "seconds", "key", "mask", "stamp"}
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) == names for line in lines)
