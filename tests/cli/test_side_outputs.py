"""Sheets, figures and reports: nothing that showface did not write is replaced, and nothing that is read, ever."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from showface import cli
from showface.cli.options import are_results, check_pictures, check_sides, write_text
from showface.runtime.batch.item import Item
from showface.runtime.batch.results_log import Result
from showface.runtime.batch.sheets.contact_sheet import write_sheet
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.files import check_replaceable, sealed, write_side
from showface.runtime.images.codec import read_photo

OURS = b'{"input": "a.png", "output": "a.png", "status": "done"}\n' * 2
FOREIGN = [
    b"",
    b"mine",
    b"\0" * 100,
    b"{}",
    OURS + b"and more",
    sealed(b"picture") + b"edited",
    sealed(b"x")[:-1] + b"g",
]


def same(path):
    return path.read_bytes() if path.is_file() else None


@pytest.fixture
def place(tmp_path):
    """Return a folder with inputs, masks, a bundle's manifest and a place for what is written."""
    for name in ("in", "masks", "bundle", "other"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "in" / "face.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "masks" / "face.png")
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("data", FOREIGN)
@pytest.mark.parametrize("name", ["x.png", "x.json", "x.csv", "x.html", "x.md"])
def test_a_foreign_file_is_kept(place, name, data):
    path = place / "other" / name
    path.write_bytes(data)
    with pytest.raises(UsageError, match="pass overwrite=True"):
        check_sides({"--side": path}, False, place / "in", ours=are_results)
    with pytest.raises(ShowfaceError, match="pass overwrite=True"):
        write_text(path, "figures", False, are_results)
    assert path.read_bytes() == data
    check_sides({"--side": path}, True, place / "in")
    write_text(path, "figures", True)
    assert path.read_text() == "figures"


@pytest.mark.parametrize("kind", ["folder", "FIFO", "dangling", "device"])
def test_what_is_no_file_is_kept(place, kind):
    path = place / "other" / "x.json"
    {"folder": path.mkdir, "FIFO": lambda: os.mkfifo(path), "dangling": lambda: path.symlink_to("nowhere"),
     "device": lambda: path.symlink_to("/dev/null")}[kind]()  # fmt: skip
    with pytest.raises(UsageError):
        check_sides({"--json": path}, False)
    assert os.path.lexists(path)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif", "x.bmp"])
def test_an_own_picture_is_replaced_and_still_a_picture(place, name):
    items = [Item(place / "in" / "face.png", place / "in" / "face.png", place / "in" / "face.png")]
    results = [Result(items[0].relative.as_posix(), "face.png", "done")]
    path = place / "other" / name
    for _ in range(2):
        check_pictures({"--sheet": path}, False, place / "in")
        write_sheet(path, items, results, MaskSource("file", place / "masks" / "face.png"))
        assert read_photo(path).pixels.shape == (160, 960, 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShowfaceError, match="not as showface wrote it"):
        write_sheet(path, items, results, MaskSource("file", place / "masks" / "face.png"))


def test_lines_of_results_belong_to_the_verb_that_writes_such(place):
    path = place / "other" / "masks.jsonl"
    path.write_bytes(OURS)
    with pytest.raises(UsageError, match="pass overwrite=True"):
        check_sides({"--json": path}, False)
    with pytest.raises(ShowfaceError, match="pass overwrite=True"):
        write_text(path, "figures", False)
    assert path.read_bytes() == OURS
    check_sides({"--json": path}, False, ours=are_results)
    write_text(path, "next", False, are_results)
    assert path.read_text() == "next"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "target",
    ["in/face.png", "in/new.png", "masks/face.png", "masks/new.jpg", "bundle/manifest.json", "bundle/new.json"],
)
@pytest.mark.parametrize("way", ["itself", "a link", "a path through a link", "dots"])
def test_what_is_read_is_never_written(place, target, overwrite, way):
    path = place / target
    if way == "a link":
        if not path.exists():
            pytest.skip("nothing to link to")
        (place / "other" / path.name).symlink_to(path)
        named = place / "other" / path.name
    elif way == "a path through a link":
        (place / "through").symlink_to(path.parent)
        named = place / "through" / path.name
    else:
        named = path if way == "itself" else place / "other" / ".." / target
    before = same(path)
    with pytest.raises(UsageError, match="which is read"):
        check_sides({"--side": named}, overwrite, place / "in", place / "masks", place / "bundle")
    assert same(path) == before


def test_a_hard_link_to_an_input_is_not_written_through(place):
    linked = place / "other" / "x.json"
    os.link(place / "in" / "face.png", linked)
    before = (place / "in" / "face.png").read_bytes()
    write_text(linked, "figures", True)
    assert (place / "in" / "face.png").read_bytes() == before


def test_two_options_may_not_name_one_file(place):
    with pytest.raises(UsageError, match="is also what --json names"):
        check_sides({"--json": place / "x", "--csv": place / "other" / ".." / "x"}, True)


def test_a_file_that_comes_while_the_work_goes_on_is_kept(place):
    path = place / "other" / "x.json"
    check_sides({"--json": path}, False)
    path.write_text("somebody else's")
    with pytest.raises(ShowfaceError, match="pass overwrite=True") as late:
        write_text(path, "figures", False)
    assert late.value.exit_code == 1  # the work is done
    with pytest.raises(UsageError, match="pass overwrite=True"):
        check_replaceable(path, False)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ("inpaint", "in", "out", "--masks", "masks", "--sheet"),
        ("masks", "in", "found", "--mask-from", "alpha", "--sheet"),
        ("masks", "in", "found", "--mask-from", "alpha", "--json"),
        ("validate", "--json"),
        ("benchmark", "--json"),
        ("benchmark", "--csv"),
        ("benchmark", "--markdown"),
        ("diagnose", "x.safetensors", "--images", "in", "--masks", "masks", "--json"),
        ("evaluate", "--images", "in", "--masks", "masks", "--json"),
        ("evaluate", "--images", "in", "--masks", "masks", "--sheet"),
        ("evaluate", "occluder", "--clean", "in", "--json"),
        ("calibrate", "bundle", "out", "--images", "in", "--masks", "masks", "--report"),
    ],
)
def test_every_verb_keeps_to_it(place, monkeypatch, capsys, verb):
    monkeypatch.chdir(place)
    foreign = place / "other" / "mine.png"
    foreign.write_bytes(b"mine")
    code, text = run(capsys, *verb, "other/mine.png")
    assert (code, foreign.read_bytes()) == (2, b"mine")
    assert "--overwrite" in text
    face = (place / "in" / "face.png").read_bytes()
    if verb[0] in ("inpaint", "masks", "diagnose", "evaluate", "calibrate"):
        code, text = run(capsys, *verb, "in/face.png", "--overwrite")
        assert code == 2
        assert "which is read" in text
    assert (place / "in" / "face.png").read_bytes() == face


def test_a_page_that_came_meanwhile_is_replaced_only_where_that_is_wanted(place):
    """What every report is written by, behind the work."""
    path = place / "other" / "x.html"
    path.write_text("somebody else's")
    with pytest.raises(ShowfaceError, match="pass overwrite=True"):
        write_side(path, b"<html>", False)
    write_side(path, b"<html>", True)
    assert path.read_bytes() == b"<html>"


def test_a_sheet_may_not_be_an_output(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    code, text = run(capsys, "inpaint", "in", "out", "--masks", "masks", "--sheet", "out/face.png")
    assert code == 2  # the folder is not there yet
    (place / "out").mkdir()
    code, text = run(capsys, "inpaint", "in", "out", "--masks", "masks", "--sheet", "out/face.png", "--overwrite")
    assert code == 2
    assert "is the output of an input" in text


def test_a_mask_folder_with_foreign_masks_is_kept(place, faces, monkeypatch, capsys):
    monkeypatch.chdir(place)
    shutil.rmtree("in")
    (place / "in").mkdir()
    Image.fromarray(np.dstack([faces[0][0], np.full((256, 256), 255, np.uint8)])).save("in/face.png")
    (place / "found").mkdir()
    (place / "found" / "face.png").write_bytes(b"mine")
    code, _ = run(capsys, "masks", "in", "found", "--mask-from", "alpha", "--device", "cpu")
    assert code == 1
    assert (place / "found" / "face.png").read_bytes() == b"mine"
