"""``--mask-from occlusion`` and ``showface masks`` as a user types them: what they say, and their exit codes."""

import json

import pytest
from fixtures.occluder import cover
from PIL import Image


@pytest.fixture
def images(tmp_path, faces):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(cover(faces[0][0])[0]).save(folder / "covered.png")
    Image.fromarray(cover(faces[0][0], axes=(120, 125), centre=(128, 128))[0]).save(folder / "huge.png")
    Image.fromarray(faces[1][0]).save(folder / "clean.png")
    return folder


def test_a_folder_without_masks_is_completed_and_counted(showface, images, tmp_path, green_bundle):
    run = ("inpaint", images, tmp_path / "out", "--mask-from", "occlusion", "--bundle", green_bundle)
    result = showface(*run)
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()[-1]
    assert said == (
        "3 files: 1 completed, 1 nothing found (copied), 1 too large (a face left as it is); 1 of them uncertain"
    )
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert {line["input"]: line["mask"]["parts"] for line in lines} == {"covered.png": 1, "huge.png": 0, "clean.png": 0}
    assert showface(*run, "--fail-on-uncertain").returncode == 1
    (images / "huge.png").unlink()
    assert showface(*run, "--fail-on-uncertain").returncode == 0


def test_masks_and_their_sheet_come_first(showface, images, tmp_path, green_bundle):
    result = showface("masks", images, tmp_path / "masks", "--bundle", green_bundle, "--json", tmp_path / "m.jsonl")
    assert result.returncode == 0, result.stderr
    assert "3 files: 1 with a mask, 1 nothing found (empty mask), 1 too large" in result.stderr
    assert (tmp_path / "masks-review.jpg").is_file()
    assert f"the masks over their faces: {tmp_path / 'masks-review.jpg'}" in result.stderr.replace("\n", "")
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"covered.png", "huge.png", "clean.png"}
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 3
    completed = showface("inpaint", images, tmp_path / "out", "--masks", tmp_path / "masks", "--bundle", green_bundle)
    assert completed.returncode == 0, completed.stderr
    assert "3 done" in completed.stderr


def test_what_does_not_fit_is_refused_before_any_work(showface, images, tmp_path, narrow_bundle, green_bundle):
    none = showface("inpaint", images, tmp_path / "out", "--mask-from", "occlusion", "--bundle", narrow_bundle)
    assert none.returncode == 2
    assert "this bundle has no occluder for --mask-from occlusion" in none.stderr
    assert none.stderr.count("\n") == 1
    limits = ("--mask-from", "occlusion", "--max-hole", "0.001", "--bundle", green_bundle)
    assert "--max-hole" in showface("inpaint", images, tmp_path / "out", *limits).stderr
    file = showface("masks", images, tmp_path / "masks", "--mask-from", "file")
    assert file.returncode == 2
    assert "such masks are there already" in file.stderr
    sheet = showface("masks", images, tmp_path / "masks", "--bundle", green_bundle, "--sheet", tmp_path / "no/s.png")
    assert "--sheet" in sheet.stderr
    json_file = showface("masks", images, tmp_path / "masks", "--bundle", green_bundle, "--json", images)
    assert "--json" in json_file.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "masks").exists()


def test_files_beside_the_masks_may_lie_in_folders_that_are_made(showface, images, tmp_path, green_bundle):
    folder = tmp_path / "new" / "masks"
    result = showface("masks", images, folder, "--bundle", green_bundle, "--json", folder / "m.jsonl")
    assert result.returncode == 0, result.stderr
    assert (folder / "m.jsonl").is_file()
    assert (tmp_path / "new" / "masks-review.jpg").is_file()


def test_a_sheet_that_is_not_written_is_not_named(showface, tmp_path, green_bundle):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    result = showface("masks", tmp_path / "images", tmp_path / "masks", "--bundle", green_bundle)
    assert result.returncode == 1
    assert "1 failed" in result.stderr
    assert "masks-review" not in result.stderr
    assert not (tmp_path / "masks-review.jpg").exists()
