"""More than a hundred malformed inputs in one run: each has its line, and nothing else happens."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from showface.runtime.errors import InputError
from showface.runtime.images.decoder_process import IsolatedDecoder

from .malformed import DONE, FAILS, MASK, all_faults

LINKS = ("loop.png", "to-itself/x.png")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Return a folder with every fault, entries that are no files, and a folder outside that must stay as it is."""
    root = tmp_path_factory.mktemp("bench")
    images = root / "in"
    (images / "..deep" / "...").mkdir(parents=True)
    for fault in all_faults():
        (images / fault.name).write_bytes(fault.data)
    os.mkfifo(images / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(images)  # the path of a socket is short
        listener.bind("socket.png")
    os.mknod(images / "closed.png", stat.S_IFREG | 0)
    (images / "closed.png").chmod(0)
    (images / "loop.png").symlink_to("loop.png")
    (images / "gone.png").symlink_to("nowhere.png")
    (images / "endless.png").symlink_to("/dev/zero")
    (images / "folder.png").mkdir()
    (images / "up").symlink_to("..")
    with (images / "sparse.png").open("wb") as file:
        file.truncate(5 * 2**30)
    (root / "outside").mkdir()
    Image.fromarray(np.tile(np.asarray([0, 255], np.uint8), (64, 32))).save(root / MASK)
    return root


SPECIAL = {
    "pipe.png": "no regular file",
    "socket.png": "cannot be read",
    "closed.png": "empty",  # root may read it
    "loop.png": "symbolic links",
    "gone.png": "No such file",
    "endless.png": "no regular file",
    "sparse.png": "larger than 1024 MiB",
}


@pytest.fixture(scope="module")
def outcome(bench, narrow_bundle):
    """Return the finished run and its lines by input."""
    options = ["--masks", bench / MASK, "--bundle", narrow_bundle, "--device", "cpu", "--batch-size", "4"]
    command = [sys.executable, "-m", "showface.cli", "--threads", "2", "inpaint", bench / "in", bench / "out"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    log = (bench / "out" / "results.jsonl").read_text()
    return result, [json.loads(line) for line in log.splitlines()]


def test_there_are_enough():
    assert len(all_faults()) + len(SPECIAL) >= 60
    assert len({fault.name for fault in all_faults()}) == len(all_faults())


def test_nothing_crashes_and_every_file_has_one_line(outcome):
    result, lines = outcome
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    expected = {fault.name for fault in all_faults()} | set(SPECIAL)
    assert Counter(line["input"] for line in lines) == dict.fromkeys(expected, 1)


def test_every_file_ends_as_it_has_to(outcome):
    lines = {line["input"]: line for line in outcome[1]}
    wrong = {
        fault.name: lines[fault.name]["error"]
        for fault in all_faults()
        if lines[fault.name]["status"] != fault.status or fault.words not in (lines[fault.name]["error"] or "")
    }
    assert wrong == {}
    for name, words in SPECIAL.items():
        if name == "closed.png" and os.getuid() != 0:
            words = "Permission denied"
        assert lines[name]["status"] == FAILS
        assert words in lines[name]["error"], name


def test_every_failure_is_one_printable_line(outcome):
    result, lines = outcome
    printed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(printed) == sum(line["status"] == FAILS for line in lines)
    assert all(line.isprintable() for line in result.stderr.splitlines())


def test_nothing_is_written_but_the_outputs(bench, outcome):
    out = bench / "out"
    written = {os.path.relpath(os.path.join(at, name), out) for at, _, names in os.walk(out) for name in names}
    assert written == {fault.name for fault in all_faults() if fault.status == DONE} | {"results.jsonl"}
    assert os.listdir(bench / "outside") == []
    assert sorted(os.listdir(bench)) == sorted(["in", "out", "outside", MASK])


def test_an_output_folder_that_leads_elsewhere_is_not_followed(bench, narrow_bundle, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "sub" / "x.png").write_bytes((bench / "in" / "trailing.png").read_bytes())
    (tmp_path / "out" / "sub").symlink_to(bench / "outside")
    command = [sys.executable, "-m", "showface.cli", "inpaint", tmp_path / "in", tmp_path / "out"]
    options = ["--masks", bench / MASK, "--bundle", narrow_bundle, "--device", "cpu"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 1
    assert "leads out of the output folder" in result.stderr
    assert os.listdir(bench / "outside") == []


CRASHING = """
import os, signal, sys, time
from showface.runtime.images import decoder_worker as decoder

real = decoder.decode_photo

def fragile(data, name):
    if b"crash" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"exit" in data:
        os._exit(3)
    if b"hang" in data:
        time.sleep(60)
    return real(data, name)

decoder.decode_photo = fragile
decoder.serve(sys.stdin.buffer, sys.stdout.buffer)
"""


def test_a_file_that_crashes_or_hangs_its_decoder_fails_alone(monkeypatch):
    monkeypatch.setattr("showface.runtime.images.decoder_start.COMMAND", (sys.executable, "-c", CRASHING))
    good = next(fault.data for fault in all_faults() if fault.name == "trailing.png")
    with IsolatedDecoder(time_limit=3.0) as decoder:
        for data, words in ((b"crash", "SIGSEGV"), (b"exit", "exit code 3"), (b"hang", "within 3 s")):
            with pytest.raises(InputError, match=rf"bad\.png: .*{words}"):
                decoder.decode(data * 100000, "bad.png")
            assert decoder.decode(good, "good.png").pixels.shape == (64, 64, 3)
