"""SIGKILL at any moment: what the runs leave together equals one uninterrupted run, byte for byte.

``SHOWFACE_KILLS=40 python -m pytest tests/faults/test_kill.py -s`` kills 40 runs that are at work, and prints how many.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KILLS, FACES = 24, 10
KILLS_AT_WORK = int(os.environ.get("SHOWFACE_KILLS", "8"))
SCRIPT = Path(__file__).with_name("run_and_kill.py")


@pytest.fixture(scope="module")
def command(tmp_path_factory, narrow_bundle, faces):
    """Return a function that gives the arguments of a run on many faces, by the name of its output folder."""
    folder = tmp_path_factory.mktemp("kill")
    (folder / "in").mkdir()
    for seed in range(FACES):
        suffix = (".png", ".jpg")[seed % 2]
        Image.fromarray(np.roll(faces[seed % 3][0], seed, axis=1)).save(folder / "in" / f"{seed}{suffix}")
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(folder / "mask.png")

    def arguments(output):
        options = ["--masks", folder / "mask.png", "--bundle", narrow_bundle, "--device", "cpu", "--batch-size", "2"]
        return folder / output, [str(a) for a in (folder / "in", folder / output, *options)]

    return arguments


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"}


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def whole(command):
    """Return the files of one uninterrupted run, and how long it took."""
    output, arguments = command("whole")
    started = time.monotonic()
    subprocess.run([sys.executable, SCRIPT, "0", "0", "0", *arguments], check=True, capture_output=True, timeout=300)
    assert len(files(output)) == FACES
    return files(output), time.monotonic() - started


def test_the_union_of_killed_runs_equals_one_uninterrupted_run(command, whole):
    expected, seconds = whole
    output, arguments = command("killed")
    run = [sys.executable, SCRIPT, "1", str(KILLS), str(seconds * 0.6), *arguments]
    result = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    codes = Counter(json.loads(result.stdout))
    assert codes[-signal.SIGKILL] == KILLS
    assert set(codes) == {-signal.SIGKILL, 0}, result.stderr  # no run refused a file that an earlier one had written
    check_finished(output, expected)


def check_finished(output, expected):
    finished = [path for path in output.parent.iterdir() if path.name.startswith(output.name)]
    for folder in finished:
        assert files(folder) == expected
        done = Counter(line["input"] for line in lines(folder) if line["status"] == "done")
        assert done == dict.fromkeys((line["input"] for line in lines(folder)), 1)  # nothing was done twice
        assert not (folder / ".showface").exists()


def test_kills_of_runs_that_are_at_work_lose_nothing(command, whole):
    """From the first output of each run on: between decoding, networks, journal, rename, log."""
    expected, seconds = whole
    output, arguments = command("worked")
    run = [sys.executable, SCRIPT, "2", str(KILLS_AT_WORK), str(seconds / FACES), "--once-it-writes", *arguments]
    result = subprocess.run(run, capture_output=True, text=True, timeout=600, check=True)
    codes = Counter(json.loads(result.stdout))
    assert set(codes) == {-signal.SIGKILL, 0}, result.stderr
    assert codes[-signal.SIGKILL] == KILLS_AT_WORK
    print(f"{KILLS_AT_WORK} runs killed at work, {codes[0]} went to their end")
    check_finished(output, expected)


KILL_ITSELF = """
import os, signal, sys
real = os.{call}

def guarded(*arguments, **options):
    global left
    mine = ".showface" in str(arguments[0])
    left -= mine
    if mine and left == 0 and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments, **options)
    if mine and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

left = 3
os.{call} = guarded
from showface.cli import main
main()
"""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_kill_around_a_rename_needs_no_overwrite(command, whole, before):
    output, arguments = command(f"rename-{before}")
    code = KILL_ITSELF.format(call="replace", before=before)
    killed = subprocess.run([sys.executable, "-c", code, "inpaint", *arguments], capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert sum(line["status"] == "done" for line in lines(output)) in (2, 1)
    assert len(list((output / ".showface").glob("*/*"))) == 1 + before  # the journal, and what was not yet renamed
    subprocess.run([sys.executable, SCRIPT, "0", "0", "0", *arguments], check=True, capture_output=True, timeout=300)
    assert files(output) == whole[0]
    assert Counter(line["status"] for line in lines(output))["done"] == FACES
    assert "failed" not in {line["status"] for line in lines(output)}
    assert os.listdir(output).count(".showface") == 0
