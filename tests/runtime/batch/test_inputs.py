"""What a run finds and where it would write: one bad entry is listed alone, a bad output is refused."""

import os
import shutil
from pathlib import Path

import pytest

from showface.runtime.batch.inputs import list_images, plan_items
from showface.runtime.batch.item import Item
from showface.runtime.errors import UsageError


def names(listed):
    return [image.relative.as_posix() for image in listed]


def refuse(monkeypatch, call, closed):
    """Make ``os.<call>`` fail for whatever lies at or below ``closed``, as it does for another user than root."""
    real = getattr(os, call)

    def guarded(path, *arguments, **options):
        if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(closed):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, guarded)


def test_an_output_that_cannot_be_is_refused(face_folder, tmp_path):
    images, _ = face_folder
    taken = tmp_path / "taken.txt"
    taken.write_text("mine")
    for source, output, message in (
        (images, images / "out", "lies inside"),
        (images, images, "lies inside"),
        (images, taken, "is a file"),
        (images / "a.png", taken, "is a file"),
        (images / "a.png", images, "input itself"),
        (images / "a.png", images / "a.png", "input itself"),
        (tmp_path / "nowhere", tmp_path / "out", "no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_items(source, output, None)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("name", ["result.gif", "result.HEIC", "result.jxl"])
def test_a_format_that_is_not_written_is_no_folder(face_folder, tmp_path, name):
    image = face_folder[0] / "a.png"
    with pytest.raises(UsageError, match=r"showface does not write \.\w+; use one of \.jpg"):
        plan_items(image, tmp_path / name, None)
    (tmp_path / name).mkdir()
    assert plan_items(image, tmp_path / name, None)[0].output == tmp_path / name / "a.png"
    assert plan_items(image, tmp_path / "out.v2", None)[0].output == tmp_path / "out.v2" / "a.png"


def test_what_is_passed_over_is_counted_and_named(face_folder, tmp_path, caplog):
    images, masks = face_folder
    (images / "deep").mkdir()
    for name in ("z.heic", "deep/y.AVIF", "deep/x.gif", "notes.txt"):
        (images / name).write_bytes(b"x")
    (images / "linked").symlink_to(masks)
    caplog.set_level("INFO", "showface")
    plan_items(images, tmp_path / "out", None)
    other, linked = sorted(caplog.messages, reverse=True)
    assert other.startswith("3 passed over, such as deep/x.gif: of the formats of images, showface reads .jpg")
    assert linked == "1 passed over, such as linked: links to folders are not followed"
    caplog.clear()
    plan_items(images, tmp_path / "out", images / "linked")  # a link to the masks is no omission
    assert len(caplog.messages) == 1


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("none")
    with pytest.raises(UsageError, match="no images found"):
        plan_items(tmp_path / "in", tmp_path / "out", None)


def test_one_image_is_listed_by_its_name(face_folder):
    image = face_folder[0] / "a.png"
    assert list_images(image, None) == [Item(image, Path("a.png"), Path())]


def test_the_working_directory_can_be_listed(face_folder, monkeypatch):
    monkeypatch.chdir(face_folder[0])
    assert names(list_images(Path(), None)) == ["a.png", "b.jpg", "c.png"]


def test_loops_of_links_are_listed_like_files(face_folder, tmp_path):
    images, masks = face_folder
    (images / "deep").mkdir()
    shutil.copy(images / "a.png", images / "deep" / "d.png")
    for loop in (images / "loop.png", images / "deep" / "round.jpg", images / "deep" / "folder"):
        loop.symlink_to(loop.name)
    (images / "deep" / "up").symlink_to("..")
    jobs = plan_items(images, tmp_path / "out", masks)
    assert [job.relative.as_posix() for job in jobs] == [
        "a.png", "b.jpg", "c.png", "deep/d.png", "deep/round.jpg", "loop.png",
    ]  # fmt: skip
    assert jobs[-1] == Item(images / "loop.png", Path("loop.png"), tmp_path / "out" / "loop.png")


def test_an_input_below_a_closed_folder_is_refused_by_name(face_folder, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    shutil.copy(face_folder[0] / "a.png", closed / "a.png")
    refuse(monkeypatch, "stat", closed)
    with pytest.raises(UsageError, match=r"closed/a\.png: (cannot be read: Permission denied|no such file)"):
        plan_items(closed / "a.png", tmp_path / "out", None)
    with pytest.raises(UsageError, match=r"closed/out: cannot be read: Permission denied"):
        plan_items(face_folder[0], closed / "out", None)
