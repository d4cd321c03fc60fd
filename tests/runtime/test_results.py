"""``results.jsonl``: what a line means, which lines count, and that it does not depend on where one stands."""

import json
import shutil
from pathlib import Path

import pytest

from showface.runtime.errors import ShowfaceError
from showface.runtime.folder import process
from showface.runtime.inpainter import Inpainter
from showface.runtime.jobs import plan_jobs
from showface.runtime.masks import MaskSource
from showface.runtime.results import Result, append_result, read_results, written_outputs


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


def complete(inpainter, images, output, masks):
    output.mkdir(exist_ok=True)
    log = output / "results.jsonl"
    jobs = plan_jobs(images, output, masks)
    results = process(jobs, inpainter, MaskSource("file", masks), 4, False, log, lambda _: None, lambda: False)
    return {result.input: (result.status, result.error) for result in results}


SKIPPED = dict.fromkeys(("a.png", "b.jpg", "c.png", "deep/d.png"), ("skipped", None))


@pytest.fixture
def completed(inpainter, face_folder, tmp_path, monkeypatch):
    """Return the folders of a run that was given relative paths."""
    images, masks = face_folder
    for folder in face_folder:
        (folder / "deep").mkdir()
        shutil.copy(folder / "a.png", folder / "deep" / "d.png")
    monkeypatch.chdir(tmp_path)
    results = complete(inpainter, Path("images"), Path("out"), Path("masks"))
    assert set(results.values()) == {("done", None)}
    return images, tmp_path / "out", masks


def test_lines_hold_paths_relative_to_input_and_output(completed):
    lines = [json.loads(line) for line in (completed[1] / "results.jsonl").read_text().splitlines()]
    assert sorted(line["input"] for line in lines) == sorted(SKIPPED)
    assert all(line["output"] == line["input"] for line in lines)


def test_a_run_is_known_again_from_another_working_directory(completed, inpainter, tmp_path, monkeypatch):
    assert complete(inpainter, *completed) == SKIPPED
    monkeypatch.chdir(tmp_path / "images")
    assert complete(inpainter, Path(), Path("..") / "out", completed[2]) == SKIPPED


def test_a_run_is_known_again_after_its_folders_were_moved(completed, inpainter, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [Path(shutil.move(folder, elsewhere / folder.name)) for folder in completed]
    assert complete(inpainter, *moved) == SKIPPED


def test_the_last_line_of_an_input_wins_and_a_torn_line_is_ended(tmp_path):
    log = tmp_path / "results.jsonl"
    append_result(log, Result("a", "a", "done", key="1"))
    append_result(log, Result("a", "a", "failed", "broke"))
    with log.open("ab") as file:
        file.write(b'not json\n[1]\n{"foreign": 1}\n{"input": "b", "outp')
    assert read_results(log) == {"a": Result("a", "a", "failed", "broke")}
    append_result(log, Result("b", "b", "done"))
    assert log.read_bytes().endswith(b"}\n")
    assert set(read_results(log)) == {"a", "b"}
    assert json.loads(log.read_text().splitlines()[-1])["input"] == "b"


@pytest.mark.parametrize(
    "changes",
    [
        {"input": ["x"], "output": ["x"]},
        {"output": {}},
        {"output": None},
        {"status": "perhaps"},
        {"status": ["done"]},
        {"key": 3},
        {"hole_ratio": "half"},
        {"seconds": None},
        {"surprise": 1},
        {"output": "out/x"},  # of a run whose paths hung on its working directory
    ],
)
def test_foreign_lines_are_passed_over(tmp_path, changes):
    log = tmp_path / "results.jsonl"
    good = {"input": "x", "output": "x", "status": "done", "error": None, "hole_ratio": 0.5, "seconds": 1, "key": "k"}
    log.write_text(json.dumps({**good, **changes}) + "\n")
    assert (read_results(log), written_outputs(log)) == ({}, set())
    log.write_text(json.dumps(good) + "\n")
    assert (set(read_results(log)), written_outputs(log)) == ({"x"}, {"x"})


def test_a_failure_does_not_disown_the_file_written_before_it(tmp_path):
    path = tmp_path / "results.jsonl"
    append_result(path, Result("a.png", "a.png", "done", key="1"))
    append_result(path, Result("a.png", "a.png", "failed", error="no mask"))
    append_result(path, Result("b.png", "b.png", "failed", error="no mask"))
    assert written_outputs(path) == {"a.png"}


def test_a_line_that_cannot_be_written_names_the_file(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(ShowfaceError, match=r"results\.jsonl: cannot be written: Is a directory"):
        append_result(tmp_path / "results.jsonl", Result("a", "a", "done"))
