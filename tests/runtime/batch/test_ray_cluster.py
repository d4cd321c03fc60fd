"""``--cluster local``: two workers, killed from outside and by an input; files equal a local run's, none done twice."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs showface[cluster]")

from showface.cli import main
from showface.runtime.batch import read_input
from showface.runtime.batch.item import Item
from showface.runtime.batch.journal import start_run
from showface.runtime.batch.options import Options
from showface.runtime.batch.ray_cluster import Setup, Worker, row_of, share
from showface.runtime.batch.results_log import Result
from showface.runtime.batch.start import Model
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.images.decoder_process import IsolatedDecoder

FACES = 33  # three chunks for two workers, with the last one
POISON = "poison.png"  # kills whoever completes it; the last of its chunk, by its name
# Of any number, so that a local cluster has two workers of one thread.
TWO_PROCESSORS = """
from showface.runtime.batch import ray_cluster
from showface.cli import main

ray_cluster.processors = lambda: 2
main()
"""
DEADLY = """
import os, signal

def guarded(source, target, real=os.replace):
    if os.path.basename(target) == "poison.png":
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)

os.replace = guarded
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, faces):
    """Return a folder of many faces, one of them broken and one with a name that is no UTF-8, and a mask."""
    images = tmp_path_factory.mktemp("cluster") / "in"
    images.mkdir()
    for seed in range(FACES - 2):
        Image.fromarray(np.roll(faces[seed % 3][0], seed, axis=1)).save(images / f"{seed}.png")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:5000])
    odd = os.fsencode(images) + b"/0\xff.png"
    with open(odd, "wb") as file:
        file.write((images / "1.png").read_bytes())
    shutil.copy(images / "0.png", images / POISON)
    mask = images.parent / "mask.png"
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(mask)
    return images, mask


def arguments(folders, bundle, output, *options):
    images, mask = folders
    given = ["inpaint", images, output, "--masks", mask, "--bundle", bundle, "--device", "cpu", *options]
    return ["--threads", "1", *map(str, given)]


def command(*given):
    return [sys.executable, "-c", TWO_PROCESSORS, *arguments(*given)]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def busy_worker(output, process):
    """Wait until a worker has announced an output, and return its process id."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        for journal in (output / ".showface").glob("*/*.journal"):
            if journal.read_bytes().count(b"\n") >= 2:
                return int(journal.name.rsplit("-", 2)[1])
        time.sleep(0.02)
    return None


@pytest.fixture(scope="module")
def run(folders, narrow_bundle, tmp_path_factory):
    """Return the output folder and the messages of a run on a cluster, one worker of which was killed from outside."""
    place = tmp_path_factory.mktemp("run")
    (place / "code").mkdir()
    (place / "code" / "sitecustomize.py").write_text(DEADLY)  # is run by each Python that starts with this path
    output, environment = place / "out", {**os.environ, "PYTHONPATH": str(place / "code")}
    start = command(folders, narrow_bundle, output, "--cluster", "local")
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment) as process:
        worker = busy_worker(output, process)
        assert worker is not None, process.communicate()[1]
        os.kill(worker, signal.SIGKILL)
        _, messages = process.communicate(timeout=300)
    assert process.returncode == 1, messages  # of two inputs nothing is made
    return output, messages


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(run, folders, narrow_bundle, tmp_path, capsys):
    output, messages = run
    assert f"{FACES - 1} done, 0 skipped, 2 failed" in messages
    assert "2 workers" in messages
    assert Counter(line["status"] for line in lines(output)) == {"done": FACES - 1, "failed": 2}
    assert len({line["input"] for line in lines(output)}) == FACES + 1

    def locally(folder):
        with pytest.raises(SystemExit) as end:
            main(arguments(folders, narrow_bundle, folder))
        assert end.value.code == 1  # one input is broken
        return capsys.readouterr().err

    local, again = tmp_path / "local", tmp_path / "again"
    locally(local)
    expected = files(local)
    del expected[POISON]
    assert files(output) == expected
    assert len(expected) == FACES - 1
    keys = [{(r["input"], r["key"]) for r in lines(folder) if r["input"] != POISON} for folder in (output, local)]
    assert keys[0] == keys[1]
    # What the cluster has done, a local run knows.
    shutil.copytree(output, again)
    assert f"1 done, {FACES - 1} skipped, 1 failed" in locally(again)


def test_an_input_that_kills_its_workers_is_given_up(run):
    output, _ = run
    (found,) = [line for line in lines(output) if line["input"] == POISON]
    assert found["status"] == "failed"
    assert "its worker died 3 times" in found["error"]
    assert POISON not in files(output)


@pytest.fixture
def work(folders, narrow_bundle, tmp_path):
    """Return a worker with batches of two, and a function that gives it the images of some numbers as a chunk."""
    images, mask = folders
    options = Options(MaskSource("file", mask), batch_size=2)
    setup = Setup(Model(narrow_bundle, device="cpu", threads=1), open_bundle(narrow_bundle).digest, tmp_path, options)
    worker = Worker(setup, start_run(tmp_path))

    def start(*numbers):
        paths = [(images / f"{n}.png", Path(f"{n}.png"), tmp_path / f"{n}.png") for n in numbers]
        items = [Item(*path, result=Result(path[1].name, path[1].name, "failed")) for path in paths]
        return [json.loads(line) for line in worker({"item": [row_of(item) for item in items]})["line"]]

    return worker, start


@pytest.mark.parametrize(("given", "expected"), [(0, 2), (1, 1), (3, 3)])
def test_a_worker_has_as_many_faces_side_by_side_as_are_asked_for(given, expected, narrow_bundle, tmp_path):
    model = Model(narrow_bundle, device="cpu", threads=2, side_by_side=given)
    setup = Setup(model, open_bundle(narrow_bundle).digest, tmp_path, Options(MaskSource("alpha")))
    assert Worker(setup, start_run(tmp_path)).options.side_by_side == expected


def test_a_worker_keeps_its_decoders_and_its_halved_batch(work, monkeypatch):
    worker, start = work
    real, opened = worker.runner.inpainter.submit, []

    def submit(images, masks):
        if len(images) > 1:
            raise MemoryError
        return real(images, masks)

    monkeypatch.setattr(read_input, "IsolatedDecoder", IsolatedDecoder)  # none that an earlier test has left
    enter = IsolatedDecoder.__enter__
    monkeypatch.setattr(IsolatedDecoder, "__enter__", lambda decoder: opened.append(decoder) or enter(decoder))
    monkeypatch.setattr(worker.runner.inpainter, "submit", submit)
    first, second = start(0, 1), start(2, 3)
    assert [line["say"] for line in first + second if "say" in line] == [
        "out of memory with 2 faces a batch; going on with 1"
    ]
    assert [line["result"]["status"] for line in first + second if "result" in line] == ["done"] * 4
    assert len(opened) == 1


def test_what_no_other_chunk_will_fare_better_with_ends_the_run(work, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    work[0].journal.write = full
    assert [line for line in work[1](0) if "No space left on device; make room" in line.get("end", "")]


@pytest.mark.parametrize(
    ("nodes", "threads", "device", "expected"),
    [
        ([(8, 0)], 2, "auto", (2, 0, 4)),
        ([(8, 0), (3, 0)], None, "auto", (3, 0, 3)),
        ([(8, 0), (0, 0)], None, "cpu", (8, 0, 1)),
        ([(8, 2), (16, 0)], 2, "auto", (2, 1, 2)),
        ([(2, 4)], None, "auto", (1, 1, 2)),
        ([(8, 2), (16, 0)], 8, "cpu", (8, 0, 3)),
    ],
)
def test_workers_fit_into_the_machines(nodes, threads, device, expected):
    assert share(nodes, threads, device) == expected


@pytest.mark.parametrize(
    ("nodes", "threads", "words"),
    [
        ([(8, 0)], 16, "the largest has 8"),
        ([(2, 1), (64, 0)], 4, "with a GPU has 4 CPUs.*the largest has 2"),
        ([(0, 1)], None, "the largest has 0"),
        ([], 1, "the largest has 0"),
    ],
)
def test_a_worker_that_fits_nowhere_is_refused(nodes, threads, words):
    with pytest.raises(UsageError, match=f"{words}.*fewer threads a worker"):
        share(nodes, threads, "auto")


def test_a_cluster_that_is_not_there_is_refused(folders, narrow_bundle, tmp_path):
    call = command(folders, narrow_bundle, tmp_path / "out", "--cluster", "127.0.0.1:1")
    result = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 2, result.stderr
    assert "--cluster: 127.0.0.1:1" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
