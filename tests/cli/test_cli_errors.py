"""What the surroundings can do to a run: one line that names the path, the right exit code, never a traceback."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from showface import cli
from showface.runtime.errors import UsageError


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line in this process and returns its exit code and stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def start(*arguments):
        code = 0
        try:
            cli.main(["--threads", "2", *map(str, arguments)])
        except SystemExit as end:
            code = end.code or 0
        return code, capsys.readouterr().err

    return start


@pytest.fixture
def inpaint(run, face_folder, narrow_bundle, tmp_path):
    """Return a function that completes the three faces; keywords replace its arguments."""
    images, masks = face_folder

    def start(*options, source=images, output=tmp_path / "out", masks=masks):
        return run("inpaint", source, output, "--masks", masks, "--bundle", narrow_bundle, "--device", "cpu", *options)

    return start


@pytest.mark.parametrize(("output", "saved"), [("out", "masks"), ("masks", "saved"), ("out", "out")])
def test_what_is_written_is_kept_apart_from_what_is_read(inpaint, face_folder, tmp_path, output, saved):
    before = {path.name: path.read_bytes() for path in face_folder[1].iterdir()}
    code, text = inpaint("--overwrite", "--save-masks", tmp_path / saved, output=tmp_path / output)
    assert code == 2
    assert "choose another" in text
    assert {path.name: path.read_bytes() for path in face_folder[1].iterdir()} == before


@pytest.fixture
def close(monkeypatch):
    """Return a function that closes a folder to this process, as permissions do for another user than root."""

    def start(folder, *calls):
        def guard(real):
            def guarded(path, *arguments, **options):
                if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(folder):
                    raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
                return real(path, *arguments, **options)

            return guarded

        for call in calls:
            module, name = ("io", "open") if call == "open" else ("os", call)
            monkeypatch.setattr(f"{module}.{name}", guard(getattr(sys.modules[module], name)))

    return start


def refused(outcome, *words):
    """Assert that a run ended with exit code 2 and one line that holds ``words``."""
    code, message = outcome
    line = message.splitlines()[-1]
    assert code == 2, message
    assert line.startswith("error: ")
    assert all(str(word) in line for word in words), line
    assert "Traceback" not in message


def is_set_up(message):
    return "using ONNX Runtime" in message


def test_a_json_file_in_no_folder_is_refused_before_the_work(run, narrow_bundle, tmp_path):
    outcome = run("validate", narrow_bundle, "--device", "cpu", "--json", tmp_path / "nodir" / "x.json")
    refused(outcome, "--json", "nodir/x.json", "there is no folder")
    assert not is_set_up(outcome[1])
    refused(run("validate", narrow_bundle, "--json", tmp_path), "--json", tmp_path, "is a folder")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("nodir/s.png", "there is no folder"), ("s.gif", "showface writes .jpg"), ("s", "showface writes .jpg")],
)
def test_a_sheet_that_cannot_be_is_refused_before_the_work(inpaint, tmp_path, name, cause):
    outcome = inpaint("--sheet", tmp_path / name)
    refused(outcome, "--sheet", name, cause)
    assert not is_set_up(outcome[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "source", "cause"),
    [
        ([], "empty", "no images found"),
        (["--watch"], "images/a.png", "only a folder can be watched"),
        (["--sheet", "out/a.png"], "images", "is the output of an input"),
    ],
)
def test_a_run_that_is_refused_makes_no_folder_for_masks(
    inpaint, face_folder, tmp_path, monkeypatch, options, source, cause
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    refused(inpaint(*options, "--save-masks", "saved", source=Path(source), output=Path("out")), cause)
    assert not (tmp_path / "saved").exists()


def test_a_read_only_output_is_refused(inpaint, close, tmp_path):
    (tmp_path / "out").mkdir()
    close(tmp_path / "out", "open")
    refused(inpaint(), "out/results.jsonl: cannot be written: Permission denied")


def test_a_log_that_is_a_folder_is_refused(inpaint, tmp_path):
    (tmp_path / "out" / "results.jsonl").mkdir(parents=True)
    refused(inpaint(), "out/results.jsonl: cannot be written: Is a directory")


def test_an_output_below_a_file_is_refused(inpaint, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(inpaint(output=tmp_path / "file" / "out"), "file/out", "cannot be written: Not a directory")


def test_an_unreadable_folder_in_the_output_fails_its_inputs_alone(inpaint, face_folder, close, tmp_path):
    for folder in face_folder:
        (folder / "deep").mkdir()
        shutil.copy(folder / "a.png", folder / "deep" / "d.png")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    close(tmp_path / "out" / "deep", "stat", "open")
    code, message = inpaint()
    assert code == 1
    assert "3 done, 0 skipped, 1 failed" in message
    assert "out/deep" in message
    assert "Permission denied" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("what", ["source", "masks"])
def test_an_unreadable_parent_of_input_or_masks_is_refused(inpaint, face_folder, close, tmp_path, what):
    closed = tmp_path / "closed"
    path = shutil.copytree(face_folder[("source", "masks").index(what)], closed / "below")
    close(closed, "stat")
    refused(inpaint(**{what: path}), "closed/below")


def test_a_loop_of_links_fails_alone(inpaint, face_folder):
    images, masks = face_folder
    (images / "loop.png").symlink_to("loop.png")
    shutil.copy(masks / "a.png", masks / "loop.png")
    code, message = inpaint()
    assert code == 1
    assert "3 done, 0 skipped, 1 failed" in message
    assert "loop.png: cannot be read: Too many levels of symbolic links" in message


def test_foreign_lines_do_not_stop_a_run(inpaint, tmp_path):
    (tmp_path / "out").mkdir()
    line = {"input": ["x"], "output": "x", "status": "done", "error": None, "hole_ratio": 0, "seconds": 0, "key": None}
    (tmp_path / "out" / "results.jsonl").write_text(json.dumps(line) + "\n")
    assert inpaint()[0] == 0


@pytest.mark.parametrize("name", ["o[/x]", "faces [red]", "[bold]"])
def test_paths_are_printed_as_they_are(inpaint, tmp_path, name):
    code, message = inpaint(output=tmp_path / name)
    assert code == 0, message
    assert f"{name}/results.jsonl" in message
    refused(inpaint(output=tmp_path / "more", source=tmp_path / name / "nothing"), f"{name}/nothing: no such file")
    (tmp_path / "no masks" / name).mkdir(parents=True)
    code, message = inpaint(output=tmp_path / "third", masks=tmp_path / "no masks" / name)
    assert code == 1
    assert f"failed: a.png: no mask {tmp_path}/no masks/{name}/a.* or " in message


def test_info_shows_the_whole_path_of_a_bundle(narrow_bundle, tmp_path, capsys):
    long = tmp_path / ("x" * 100) / "faces [red]"
    shutil.copytree(narrow_bundle, long)
    with pytest.raises(SystemExit):
        cli.main(["info", str(long)])
    assert f"{long}\n" in capsys.readouterr().out


def test_a_manifest_of_wrong_types_is_refused(inpaint, narrow_bundle, tmp_path):
    bundle = shutil.copytree(narrow_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "image_size": "256"}))
    refused(inpaint("--bundle", bundle), "manifest.json", "'image_size'")


def test_an_error_of_the_system_that_nobody_expected_is_one_line(inpaint, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error", "some/where")

    monkeypatch.setattr("showface.runtime.batch.start.complete_folder", fail)
    refused(inpaint(), "some/where: Input/output error")


def test_verbose_shows_the_traceback(run, tmp_path):
    with pytest.raises(Exception, match="no bundle here"):
        run("--verbose", "info", tmp_path)


def test_masks_without_images_are_refused(run, narrow_bundle, narrow_checkpoint, face_folder, tmp_path):
    masks = ("--masks", face_folder[1])
    refused(run("validate", narrow_bundle, *masks), "golden inputs", "need a checkpoint")
    refused(run("validate", narrow_bundle, "--checkpoint", narrow_checkpoint, *masks), "--masks: masks need faces")
    refused(run("export", narrow_checkpoint, tmp_path / "new", *masks), "--masks: masks need faces")
    assert not (tmp_path / "new").exists()


def test_validate_against_a_checkpoint_uses_the_device_that_was_asked_for(
    run, narrow_bundle, narrow_checkpoint, face_folder
):
    real = ("--images", face_folder[0], "--masks", face_folder[1])
    outcome = run("validate", narrow_bundle, "--checkpoint", narrow_checkpoint, "--device", "cuda:99", *real)
    refused(outcome, "--device: cuda:99", "CUDA devices")


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Interrupter())
from showface.cli import main
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_the_first_imports_ends_quietly(name, code):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT.format(name=name), "info"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


def test_masks_that_are_the_inputs_are_refused(inpaint, face_folder, tmp_path):
    """Every bright pixel of a photograph would become hole."""
    images, _ = face_folder
    refused(inpaint(masks=images), f"--masks {images}", "is the input itself")
    face = next(images.glob("*.png"))
    refused(inpaint(source=face, output=tmp_path / "done.png", masks=face), "is the input itself")
    assert not (tmp_path / "out").exists()


def test_a_sheet_that_fails_after_the_work_is_named_and_the_work_is_kept(inpaint, tmp_path, monkeypatch):
    def full(*arguments):
        raise UsageError("s.png: cannot be written")

    monkeypatch.setattr("showface.runtime.batch.sheets.contact_sheet.write_sheet", full)
    code, text = inpaint("--sheet", tmp_path / "s.png")
    assert code == 1
    assert "error: s.png: cannot be written" in text
    assert "3 done" in text


TWICE = """
import os, signal, time
from showface.cli.signals import catch_signals

caught = catch_signals()
os.kill(os.getpid(), signal.SIGTERM)
assert caught == [signal.SIGTERM]
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


def test_a_second_signal_does_not_wait():
    result = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=50, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
