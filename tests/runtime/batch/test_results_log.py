"""``results.jsonl``: what a line means, which lines count, and that it does not depend on where one stands."""

import json
import shutil
from pathlib import Path

import pytest

from showface.runtime.batch.inputs import plan_items, renamed
from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import Result, ResultLog, read_results
from showface.runtime.batch.run import complete_folder
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.files import append_whole
from showface.runtime.inpainter import Inpainter


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


def complete(inpainter, images, output, masks):
    output.mkdir(exist_ok=True)
    options = Options(MaskSource("file", masks), batch_size=4)
    results = complete_folder(plan_items(images, output, masks), inpainter, options, output / "results.jsonl")
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


def append(path, *results):
    """Append the results in a run of their own; return what an earlier run had left."""
    log = ResultLog(path)
    before = dict(log.last), set(log.written)
    for result in results:
        log.append(result)
    log.close()
    return before


def test_the_last_line_of_an_input_wins_and_a_torn_line_is_ended(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, Result("a", "a", "done", key="1"), Result("a", "a", "failed", "broke"))
    with path.open("ab") as file:
        file.write(b'not json\n[1]\n{"foreign": 1}\n{"input": "b", "outp')
    assert append(path, Result("b", "b", "done"))[0] == {"a": Result("a", "a", "failed")}
    assert path.read_bytes().endswith(b"}\n")
    assert set(append(path)[0]) == {"a", "b"}
    assert json.loads(path.read_text().splitlines()[-1])["input"] == "b"


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
    assert append(log) == ({}, set())
    log.write_text(json.dumps(good) + "\n")
    assert append(log) == ({"x": Result(**good)}, {"x"})


def test_a_failure_does_not_disown_the_file_written_before_it(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = Result("a.png", "a.png", "done", key="1"), Result("a.png", "a.png", "failed", error="no mask")
    append(path, *lines, Result("b.png", "b.png", "failed", error="no mask"))
    assert append(path)[1] == {"a.png"}


def test_a_line_may_differ_in_the_suffix_of_its_output(tmp_path):
    names = [("d/a.jpg", "d/a.png"), ("..png", "..jpg"), ("d/.b..png", "d/.b..jpg")]
    assert [renamed(name, Path(output).suffix) for name, output in names] == [output for _, output in names]
    append(tmp_path / "results.jsonl", *(Result(*both, "done") for both in names))
    assert [(line.input, line.output) for line in read_results(tmp_path / "results.jsonl")] == names


def test_a_log_that_cannot_be_written_names_the_file(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"results\.jsonl: cannot be written: Is a directory"):
        ResultLog(tmp_path / "results.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_line_that_does_not_fit_on_the_disk_names_the_file(tmp_path):
    with open("/dev/full", "ab", buffering=0) as full:
        log = ResultLog(tmp_path / "results.jsonl", append=lambda _, line: append_whole(full, line))
        with pytest.raises(ShowfaceError, match=r"results\.jsonl: cannot be written: No space left on device"):
            log.append(Result("a", "a", "done"))


@pytest.mark.parametrize("recreated", [False, True])
def test_a_log_whose_folder_is_gone_is_not_written_on(tmp_path, recreated):
    log = ResultLog(tmp_path / "out" / "results.jsonl")
    shutil.rmtree(tmp_path / "out")
    if recreated:
        ResultLog(tmp_path / "out" / "results.jsonl").close()
    with pytest.raises(ShowfaceError, match="is gone or was replaced"):
        log.append(Result("a", "a", "done"))


def test_a_second_run_on_one_folder_is_refused_until_the_first_ends(tmp_path):
    first = ResultLog(tmp_path / "results.jsonl")
    with pytest.raises(UsageError, match="another run writes to this folder"):
        ResultLog(tmp_path / "results.jsonl")
    first.close()
    ResultLog(tmp_path / "results.jsonl").close()
