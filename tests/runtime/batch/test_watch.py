"""A watched folder: what comes is completed once it is whole, each state once, with the log of a folder run."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.start import Model
from showface.runtime.batch.watch import look, rounds, watch_folder
from showface.runtime.errors import UsageError
from showface.runtime.faces.masks import MaskSource

ALPHA = Options(MaskSource("alpha"))


def picture(path, value=0):
    values = np.full((64, 64, 4), (value, value, value, 255), np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def follow(folder, options, steps):
    """Run the looks; before each one the next of ``steps`` is done. Return the names that each look gave."""
    given, output = [], folder.parent / "out"
    remaining = iter(steps)

    def stopped():
        step = next(remaining, None)
        if step is None:
            return True
        step()
        given.append([])
        return False

    def plan():
        return list(plan_items(folder, output, options.masks.path))

    for items in rounds(folder, plan, options, stopped, 0.0):
        given[-1] = [item.relative.as_posix() for item in items]
    return given


def nothing():
    pass


def test_a_file_is_taken_once_it_has_stopped_growing(folder):
    def grow(size):
        return lambda: (folder / "a.png").write_bytes(bytes(size))

    looks = follow(folder, ALPHA, [nothing, grow(10), grow(20), grow(30), nothing, nothing, nothing])
    assert looks == [[], [], [], [], ["a.png"], [], []]


def test_a_file_that_changes_later_is_taken_again(folder):
    change = lambda: picture(folder / "a.png", 7)  # noqa: E731
    looks = follow(folder, ALPHA, [lambda: picture(folder / "a.png"), nothing, nothing, change, nothing, nothing])
    assert looks == [[], ["a.png"], [], [], ["a.png"], []]


def test_files_of_other_kinds_and_those_that_vanish_are_left_alone(folder):
    (folder / "notes.txt").write_text("no picture")
    looks = follow(folder, ALPHA, [lambda: picture(folder / "a.png"), lambda: (folder / "a.png").unlink(), nothing])
    assert looks == [[], [], []]
    (folder / "b.png").symlink_to(folder / "nowhere")
    assert look(folder) == {}


def test_a_picture_waits_for_its_mask(folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    options = Options(MaskSource("file", masks))
    bring = lambda: picture(masks / "a.png")  # noqa: E731
    looks = follow(folder, options, [lambda: picture(folder / "a.png"), nothing, nothing, bring, nothing, nothing])
    assert looks == [[], [], [], [], ["a.png"], []]


def test_only_a_folder_can_be_watched(folder):
    picture(folder / "a.png")
    with pytest.raises(UsageError, match="only a folder can be watched"):
        watch_folder(folder / "a.png", folder.parent / "out", ALPHA, None, Model(), lambda: True)


def test_a_watch_completes_what_comes_and_a_later_one_skips_it(face_folder, tmp_path, narrow_bundle, caplog):
    images, masks = face_folder
    later = images.parent / "later.png"
    os.rename(images / "c.png", later)
    output, options = tmp_path / "out", Options(MaskSource("file", masks))
    model = Model(narrow_bundle, "onnxruntime", "cpu", 2, side_by_side=2)
    caplog.set_level("INFO", "showface")

    def run(until):
        results = []
        for result in watch_folder(images, output, options, None, model, lambda: len(results) >= until, 0.2):
            results.append(result)
            if len(results) == 2 and later.exists():
                os.rename(later, images / "c.png")
        return {result.input: result.status for result in results}

    assert run(3) == {"a.png": "done", "b.jpg": "done", "c.png": "done"}
    assert "2 faces side by side, on one thread each" in caplog.text
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert {line["input"] for line in lines if line.get("status") == "done"} == {"a.png", "b.jpg", "c.png"}
    assert run(3) == {"a.png": "skipped", "b.jpg": "skipped", "c.png": "skipped"}
