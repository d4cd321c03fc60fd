"""The contact sheet: three tiles a face, in order, with the hole greyed out."""

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.item import Item
from showface.runtime.batch.results_log import Result
from showface.runtime.batch.sheets.contact_sheet import TILE, check_sheet, write_sheet
from showface.runtime.errors import InputError, ShowfaceError, UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.images.codec import encode_photo

COLORS = {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200)}
DONE = (250, 240, 10)


def flat(color, mode="RGB"):
    return Image.new(mode, (TILE, TILE), color)


@pytest.fixture
def run(tmp_path):
    """Return jobs of three flat faces whose left half is the hole, and the source of their masks."""
    for folder in ("in/deep", "out/deep", "masks/deep"):
        (tmp_path / folder).mkdir(parents=True)
    mask = np.zeros((TILE, TILE), np.uint8)
    mask[:, : TILE // 2] = 255
    jobs = []
    for name in ("a.png", "b.png", "deep/c.png"):
        stem = name.removesuffix(".png")[-1]
        flat(COLORS[stem]).save(tmp_path / "in" / name)
        flat(DONE).save(tmp_path / "out" / name)
        Image.fromarray(mask).save(tmp_path / "masks" / name)
        relative = (tmp_path / "in" / name).relative_to(tmp_path / "in")
        jobs.append(Item(tmp_path / "in" / name, relative, tmp_path / "out" / name))
    return jobs, MaskSource("file", tmp_path / "masks")


def result(name, status="done"):
    return Result(name, name, status)


def expected_row(color):
    row = np.empty((TILE, 3 * TILE, 3), np.uint8)
    row[:, : TILE // 2] = 127
    row[:, TILE // 2 : TILE] = color
    row[:, TILE : TILE + TILE // 2] = 255
    row[:, TILE + TILE // 2 : 2 * TILE] = 0
    row[:, 2 * TILE :] = DONE
    return row


def test_input_mask_and_result_stand_side_by_side_two_faces_a_row(run, tmp_path):
    jobs, masks = run
    path = tmp_path / "sheet.png"
    write_sheet(path, jobs, [result("a.png"), result("b.png", "skipped"), result("deep/c.png")], masks)
    empty = np.full((TILE, 3 * TILE, 3), 255, np.uint8)
    rows = [[expected_row(COLORS["a"]), expected_row(COLORS["b"])], [expected_row(COLORS["c"]), empty]]
    expected = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


def test_failed_inputs_are_left_out(run, tmp_path):
    jobs, masks = run
    write_sheet(tmp_path / "one.png", jobs, [result("a.png", "failed"), result("b.png")], masks)
    sheet = np.asarray(Image.open(tmp_path / "one.png"))
    np.testing.assert_array_equal(sheet[:, : 3 * TILE], expected_row(COLORS["b"]))
    write_sheet(tmp_path / "none.png", jobs, [result("a.png", "failed")], masks)
    assert not (tmp_path / "none.png").exists()


def test_gray_and_16_bit_faces_become_8_bit_rgb_tiles(run, tmp_path):
    jobs, masks = run
    gray = np.full((TILE, TILE), 60 * 257, np.uint16)
    for path in (jobs[0].source, jobs[0].output):
        Image.fromarray(gray).save(path)
    write_sheet(tmp_path / "sheet.png", jobs, [result("a.png")], masks)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet[:, TILE // 2 : TILE] == 60).all()
    assert (sheet[:, 2 * TILE : 3 * TILE] == 60).all()


def test_a_sheet_that_cannot_be_written_names_its_path(run, tmp_path):
    with pytest.raises(ShowfaceError, match=r"nodir.*cannot be written"):
        write_sheet(tmp_path / "nodir" / "s.png", run[0], [result("a.png")], run[1])


@pytest.mark.parametrize(("name", "most"), [("s.webp", 204), ("s.jpg", 818), ("s.JPEG", 818)])
def test_a_format_holds_as_many_faces_as_it_says(name, most, tmp_path):
    check_sheet(tmp_path / name, most)
    with pytest.raises(UsageError, match=rf"holds {most} faces, not {most + 1}; choose \.png"):
        check_sheet(tmp_path / name, most + 1)
    check_sheet(tmp_path / "s.png", 10**6)
    lines = np.zeros((most // 2 * TILE, 1, 3), np.uint8)
    suffix = (tmp_path / name).suffix.lower()
    encode_photo(lines, suffix, lossy=True)
    with pytest.raises(InputError):
        encode_photo(np.zeros((len(lines) + TILE, 1, 3), np.uint8), suffix, lossy=True)
