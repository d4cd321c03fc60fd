"""A folder of faces: every input is accounted for, and one that fails does not touch the others."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.run import complete_folder
from showface.runtime.errors import ShowfaceError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.files import write_flushed
from showface.runtime.inpainter import Inpainter


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


@pytest.fixture
def run(inpainter, face_folder, tmp_path):
    """Return a function that completes the folder to ``out`` and returns the results by input name."""
    images, masks = face_folder

    def start(
        overwrite=False, masks=masks, stopped=lambda: False, source=images, output=tmp_path / "out", write=write_flushed
    ):
        output.mkdir(exist_ok=True)
        jobs = plan_items(source, output, masks)
        options = Options(MaskSource("file", masks), batch_size=2, overwrite=overwrite)
        results = list(complete_folder(jobs, inpainter, options, output / "results.jsonl", stopped, write))
        return {os.path.basename(result.input): result for result in results}

    return start


def statuses(results):
    return {name: result.status for name, result in results.items()}


def write_mask(path, values, side=256):
    Image.fromarray(np.broadcast_to(np.asarray(values, np.uint8), (side, side)).copy()).save(path)


ALL_DONE = {"a.png": "done", "b.jpg": "done", "c.png": "done"}
ALL_SKIPPED = {"a.png": "skipped", "b.jpg": "skipped", "c.png": "skipped"}


def test_a_second_run_skips_what_is_done(run, tmp_path):
    assert statuses(run()) == ALL_DONE
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("[abc].*")}
    second = run()
    assert statuses(second) == ALL_SKIPPED
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("[abc].*")} == before
    assert all(0 < result.hole_ratio < 1 for result in second.values())
    assert statuses(run()) == ALL_SKIPPED
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 9
    assert not list((tmp_path / "out").glob(".*"))


def test_a_deleted_output_is_made_again(run, tmp_path):
    run()
    (tmp_path / "out" / "b.jpg").unlink()
    assert statuses(run()) == {**ALL_SKIPPED, "b.jpg": "done"}


def test_a_changed_mask_is_redone(run, face_folder, tmp_path):
    run()
    before = (tmp_path / "out" / "a.png").read_bytes()
    write_mask(face_folder[1] / "a.png", 255)
    assert statuses(run()) == {**ALL_SKIPPED, "a.png": "done"}
    assert (tmp_path / "out" / "a.png").read_bytes() != before


def test_a_changed_image_is_redone(run, face_folder):
    run()
    shutil.copy(face_folder[0] / "c.png", face_folder[0] / "a.png")
    assert statuses(run()) == {**ALL_SKIPPED, "a.png": "done"}


def test_an_output_that_no_run_explains_is_kept_unless_told(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"precious")
    first = run()
    assert statuses(first) == {**ALL_DONE, "a.png": "failed"}
    assert "pass overwrite=True" in first["a.png"].error
    assert statuses(run()) == {**ALL_SKIPPED, "a.png": "failed"}
    assert (out / "a.png").read_bytes() == b"precious"
    assert statuses(run(overwrite=True)) == {**ALL_SKIPPED, "a.png": "done"}
    assert (out / "a.png").read_bytes() != b"precious"


def test_a_run_goes_on_after_a_torn_last_line(run, tmp_path):
    run()
    log = tmp_path / "out" / "results.jsonl"
    log.write_bytes(log.read_bytes()[:-20])  # the line of c.png, which leaves its output unexplained
    assert statuses(run()) == {**ALL_SKIPPED, "c.png": "failed"}
    assert statuses(run(overwrite=True)) == {**ALL_SKIPPED, "c.png": "done"}


def test_files_of_the_same_stem_keep_apart(run, face_folder, tmp_path):
    Image.open(face_folder[0] / "a.png").save(face_folder[0] / "a.jpg")
    assert statuses(run()) == {**ALL_DONE, "a.jpg": "done"}
    assert Image.open(tmp_path / "out" / "a.png").format == "PNG"
    assert Image.open(tmp_path / "out" / "a.jpg").format == "JPEG"


def test_an_all_black_mask_copies_the_file_byte_by_byte(run, face_folder, tmp_path):
    images, masks = face_folder
    for name in "ab":
        write_mask(masks / f"{name}.png", 0)
    results = run()
    assert statuses(results) == ALL_DONE
    for name in ("a.png", "b.jpg"):
        assert results[name].hole_ratio == 0.0
        assert (tmp_path / "out" / name).read_bytes() == (images / name).read_bytes()
    assert statuses(run()) == ALL_SKIPPED


def test_an_input_without_a_hole_does_not_split_a_batch(run, inpainter, face_folder, monkeypatch):
    write_mask(face_folder[1] / "b.png", 0)
    sizes, real = [], inpainter.submit

    def record(images, masks):
        sizes.append(len(images))
        return real(images, masks)

    monkeypatch.setattr(inpainter, "submit", record)
    assert statuses(run()) == ALL_DONE
    assert sizes == [2]


def test_an_output_that_cannot_be_written_is_named(run, face_folder, tmp_path):
    write_mask(face_folder[1] / "a.png", 0)  # is copied, the others are encoded

    def full(*_):
        raise OSError(errno.EIO, "Input/output error")

    results = run(write=full)
    for name in ALL_DONE:
        assert results[name].status == "failed"
        assert results[name].error == f"{tmp_path / 'out' / name}: cannot be written: Input/output error"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_ends_the_run_which_then_goes_on(run, tmp_path, number):
    left = [True]

    def full(path, data):
        if not left:
            raise OSError(number, os.strerror(number))
        left.pop()
        write_flushed(path, data)

    with pytest.raises(ShowfaceError, match=rf"out: {os.strerror(number)}; make room"):
        run(write=full)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert all(json.loads(line)["status"] == "done" for line in lines)
    assert not [path for path in (tmp_path / "out").rglob("*.tmp")]
    again = statuses(run())
    assert set(again.values()) <= {"done", "skipped"}
    assert sorted(again) == sorted(ALL_DONE)


def test_an_output_that_appears_during_the_run_is_kept(run, tmp_path):

    def appear(path, data):
        write_flushed(path, data)
        (tmp_path / "out" / "b.jpg").write_bytes(b"precious")

    results = run(write=appear)
    assert results["b.jpg"].status == "failed"
    assert "appeared while the run went on" in results["b.jpg"].error
    assert (tmp_path / "out" / "b.jpg").read_bytes() == b"precious"


def test_an_input_that_is_replaced_during_the_run_is_done_again(run, face_folder, tmp_path):

    def swap(path, data):
        write_flushed(path, data)
        shutil.copy(face_folder[0] / "c.png", face_folder[0] / "a.png")

    assert statuses(run(write=swap)) == ALL_DONE
    before = (tmp_path / "out" / "a.png").read_bytes()
    assert statuses(run()) == {**ALL_SKIPPED, "a.png": "done"}
    assert (tmp_path / "out" / "a.png").read_bytes() != before


def test_an_output_folder_that_vanishes_ends_the_run(run, tmp_path):

    def vanish(path, data):
        write_flushed(path, data)
        shutil.move(tmp_path / "out", tmp_path / "moved")

    with pytest.raises(ShowfaceError, match="is gone or was replaced"):
        run(write=vanish)
    assert not (tmp_path / "out").exists()
    shutil.move(tmp_path / "moved", tmp_path / "out")
    assert set(statuses(run()).values()) <= {"done", "skipped"}


def test_an_all_white_mask_is_completed(run, face_folder, tmp_path):
    write_mask(face_folder[1] / "a.png", 255)
    results = run()
    assert statuses(results) == ALL_DONE
    assert results["a.png"].hole_ratio == 1.0
    assert Image.open(tmp_path / "out" / "a.png").size == (256, 256)


def test_a_missing_mask_fails_alone(run, face_folder):
    (face_folder[1] / "b.png").unlink()
    results = run()
    assert statuses(results) == {**ALL_DONE, "b.jpg": "failed"}
    assert "no mask" in results["b.jpg"].error


def test_two_masks_of_one_stem_fail_alone(run, face_folder):
    shutil.copy(face_folder[1] / "b.png", face_folder[1] / "b.bmp")
    results = run()
    assert statuses(results) == {**ALL_DONE, "b.jpg": "failed"}
    assert "several masks" in results["b.jpg"].error


def test_a_mask_of_another_aspect_fails_alone(run, face_folder):
    Image.fromarray(np.full((256, 200), 255, np.uint8)).save(face_folder[1] / "c.png")
    results = run()
    assert statuses(results) == {**ALL_DONE, "c.png": "failed"}
    assert "200×256 does not fit" in results["c.png"].error


def test_a_face_that_is_not_square_fails_alone(run, face_folder):
    for folder in face_folder:
        Image.open(folder / "a.png").crop((0, 0, 256, 200)).save(folder / "a.png")
    results = run()
    assert statuses(results) == {**ALL_DONE, "a.png": "failed"}
    assert "not square; crop it to an aligned face, or pass alignment=… to" in results["a.png"].error


def test_broken_files_fail_alone(run, face_folder, tmp_path):
    images, masks = face_folder
    whole = (images / "a.png").read_bytes()
    broken = {"cut.png": whole[: len(whole) // 2], "empty.png": b"", "junk.jpg": b"junk" * 100}
    for name, data in broken.items():
        (images / name).write_bytes(data)
        shutil.copy(masks / "a.png", masks / f"{name.split('.')[0]}.png")
    results = run()
    assert statuses(results) == {**ALL_DONE, **{name: "failed" for name in broken}}
    for name in broken:
        assert name in results[name].error
        assert not (tmp_path / "out" / name).exists()


def test_masks_inside_the_input_folder_are_no_inputs(run, face_folder):
    images, masks = face_folder
    inside = shutil.copytree(masks, images / "masks")
    jobs = plan_items(images, images.parent / "out", inside)
    assert [str(job.relative) for job in jobs] == ["a.png", "b.jpg", "c.png"]
    assert statuses(run(masks=inside)) == ALL_DONE


def test_subfolders_are_mirrored(run, face_folder, tmp_path):
    for folder in face_folder:
        (folder / "deep" / "er").mkdir(parents=True)
        shutil.copy(folder / "a.png", folder / "deep" / "er" / "d.png")
    assert statuses(run()) == {**ALL_DONE, "d.png": "done"}
    assert (tmp_path / "out" / "deep" / "er" / "d.png").is_file()


def test_a_run_that_is_stopped_is_resumed(run):
    asked = iter([False, False, True])
    assert statuses(run(stopped=lambda: next(asked))) == {"a.png": "done", "b.jpg": "done"}
    assert statuses(run()) == {"a.png": "skipped", "b.jpg": "skipped", "c.png": "done"}


def test_an_unreadable_folder_is_a_failed_input(run, face_folder, monkeypatch):
    images = face_folder[0]
    closed = images / "closed"
    closed.mkdir()
    scandir = os.scandir

    def guarded(path="."):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    results = run()
    assert statuses(results) == {**ALL_DONE, "closed": "failed"}
    assert "folder cannot be read: Permission denied" in results["closed"].error


def test_an_input_that_failed_in_between_is_completed_again(run, tmp_path):
    run()
    mask = tmp_path / "masks" / "a.png"
    content = mask.read_bytes()
    mask.unlink()
    assert statuses(run())["a.png"] == "failed"
    mask.write_bytes(content)
    assert statuses(run())["a.png"] == "done"
