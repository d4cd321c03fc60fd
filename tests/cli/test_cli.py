"""The command line as a user runs it: exit codes, output formats, and no torch on the device."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from showface.runtime.version import __version__

WITHOUT_TRAINING_PACKAGES = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "safetensors"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import showface.cli
showface.cli.main()
"""


def execute(*arguments, interpret=("-m", "showface.cli")):
    command = [sys.executable, *interpret, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def inpaint(images, output, bundle, *options):
    return ("inpaint", images, output, "--bundle", bundle, "--device", "cpu", *options)


WITHOUT_GRAPHICAL_LIBRARIES = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory", name="cv2")

sys.meta_path.insert(0, Finder())
import showface.cli
showface.cli.main(["inpaint", "faces", "out"])
"""


def test_a_container_without_graphical_libraries_gets_one_sentence():
    result = subprocess.run([sys.executable, "-c", WITHOUT_GRAPHICAL_LIBRARIES], capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: OpenCV cannot be loaded: libGL.so.1")
    assert "opencv-python-headless" in line


def test_a_shell_completes_verbs():
    environment = {**os.environ, "_SHOWFACE_COMPLETE": "complete_bash", "COMP_WORDS": "showface cal", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "showface.cli"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["calibrate"]


def test_version_is_printed():
    result = execute("--version")
    assert (result.returncode, result.stdout.strip()) == (0, __version__)


def test_inpaint_exits_with_0_when_all_is_done_and_1_when_one_input_failed(
    showface, face_folder, narrow_bundle, tmp_path
):
    images, masks = face_folder
    arguments = inpaint(images, tmp_path / "out", narrow_bundle, "--masks", masks)
    result = showface(*arguments)
    assert result.returncode == 0, result.stderr
    assert "3 done, 0 skipped, 0 failed" in result.stderr
    assert "on CPU" in result.stderr
    (images / "d.png").write_bytes(b"junk")
    shutil.copy(masks / "a.png", masks / "d.png")
    result = showface(*arguments)
    assert result.returncode == 1, result.stderr
    assert "0 done, 3 skipped, 1 failed" in result.stderr
    assert "d.png" in result.stderr
    assert "Traceback" not in result.stderr


def test_inpaint_exits_with_2_when_nothing_can_be_run(showface, face_folder, narrow_bundle, tmp_path):
    images, masks = face_folder
    for options, message in (
        ((), "no masks are given"),
        (("--masks", tmp_path / "nowhere"), "no such file"),
        (("--masks", masks, "--bundle", tmp_path), "no bundle here"),
    ):
        result = showface(*inpaint(images, tmp_path / "out", narrow_bundle, *options))
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert showface("inpaint", "--no-such-option").returncode == 2


def test_one_image_is_written_under_the_name_that_was_asked_for(showface, face_folder, narrow_bundle, tmp_path):
    images, masks = face_folder
    output = tmp_path / "face.png"
    result = showface(*inpaint(images / "a.png", output, narrow_bundle, "--masks", masks / "a.png"))
    assert result.returncode == 0, result.stderr
    assert output.is_file()
    assert not (tmp_path / "results.jsonl").exists()


def test_validate_writes_the_figures(showface, narrow_bundle, tmp_path):
    path = tmp_path / "parity.json"
    result = showface("validate", narrow_bundle, "--device", "cpu", "--json", path)
    assert result.returncode == 0, result.stderr
    report = json.loads(path.read_text())
    assert {"passed", "stages", "chain"} <= set(report)
    assert report["passed"] is True
    assert list(report["stages"]) == ["coarse", "parser", "memory", "mrem", "refiner"]
    for figures in report["stages"].values():
        assert {"max_abs", "mean_abs", "agreement", "passed"} <= set(figures)
    assert {"max_abs", "mean_abs", "agreement", "passed"} <= set(report["chain"])


def test_info_shows_what_the_bundle_holds(showface, narrow_bundle):
    result = showface("info", narrow_bundle)
    assert result.returncode == 0, result.stderr
    for word in (__version__, "full", "refiner", "hash checked"):
        assert word in result.stdout


@pytest.mark.parametrize("options", [(), ("--batch-size", 1)])
def test_inpaint_needs_no_training_package(face_folder, narrow_bundle, tmp_path, options):
    images, masks = face_folder
    arguments = inpaint(images, tmp_path / "out", narrow_bundle, "--masks", masks, *options)
    result = execute(*arguments, interpret=("-c", WITHOUT_TRAINING_PACKAGES))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_missing_extra_is_answered_with_the_command_that_mends_it(narrow_bundle, tmp_path):
    arguments = ("export", tmp_path / "x.safetensors", tmp_path / "bundle")
    result = execute(*arguments, interpret=("-c", WITHOUT_TRAINING_PACKAGES))
    assert result.returncode == 2, result.stderr
    assert "pip install 'showface[export]'" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_the_work_in_flight(narrow_bundle, face_folder, tmp_path, number, code):
    images, masks = face_folder
    for k in range(60):
        shutil.copy(images / "a.png", images / f"a{k}.png")
        shutil.copy(masks / "a.png", masks / f"a{k}.png")
    out = tmp_path / "signalled"
    arguments = ["inpaint", str(images), str(out), "--masks", str(masks), "--bundle", str(narrow_bundle)]
    command = [sys.executable, "-m", "showface.cli", "--threads", "1", *arguments, "--batch-size", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = out / "results.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == code
    results = [json.loads(line) for line in log.read_text().splitlines()]
    assert 2 <= len(results) < 63
    assert f"stopped by {number.name} after {len(results)} of 63; run the same command again" in messages
    assert all(result["status"] == "done" and (out / result["output"]).is_file() for result in results)
    assert len(list(out.glob("*.*"))) == len(results) + 1  # the results and nothing temporary
