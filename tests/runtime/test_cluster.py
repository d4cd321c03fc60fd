"""``--cluster local``: two workers, one of them killed; the files equal a local run's, and none is done twice."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs showface[cluster]")
FACES = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory, faces):
    """Return a folder of many faces, one of them broken and one with a name that is no UTF-8, and a mask."""
    images = tmp_path_factory.mktemp("cluster") / "in"
    images.mkdir()
    for seed in range(FACES - 2):
        Image.fromarray(np.roll(faces[seed % 3][0], seed, axis=1)).save(images / f"{seed}.png")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:5000])
    odd = os.fsencode(images) + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write((images / "1.png").read_bytes())
    mask = images.parent / "mask.png"
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(mask)
    return images, mask


def command(folders, bundle, output, *options):
    images, mask = folders
    arguments = ["inpaint", images, output, "--masks", mask, "--bundle", bundle, "--device", "cpu", *options]
    return [sys.executable, "-m", "showface.runtime.cli", "--threads", "1", *map(str, arguments)]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def busy_worker(output, process):
    """Wait until a worker has announced an output, and return its process id."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for journal in (output / ".showface").glob("*/*.journal"):
            if journal.read_bytes().count(b"\n") >= 2:
                return int(journal.name.rsplit("-", 2)[1])
        time.sleep(0.02)
    return None


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(folders, narrow_bundle, tmp_path):
    output = tmp_path / "cluster"
    run = command(folders, narrow_bundle, output, "--cluster", "local")
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as process:
        worker = busy_worker(output, process)
        assert worker is not None, process.communicate()[1]
        os.kill(worker, signal.SIGKILL)
        _, messages = process.communicate(timeout=180)
    assert process.returncode == 1, messages  # one input is broken
    assert f"{FACES - 1} done, 0 skipped, 1 failed" in messages
    assert "2 workers" in messages
    assert Counter(line["status"] for line in lines(output)) == {"done": FACES - 1, "failed": 1}
    assert len({line["input"] for line in lines(output)}) == FACES

    local = tmp_path / "local"
    subprocess.run(command(folders, narrow_bundle, local), capture_output=True, timeout=120, check=False)
    assert files(output) == files(local)
    assert len(files(local)) == FACES - 1
    assert {(line["input"], line["key"]) for line in lines(output)} == {(r["input"], r["key"]) for r in lines(local)}
    # What the cluster has done, a local run knows.
    again = subprocess.run(
        command(folders, narrow_bundle, output), capture_output=True, text=True, timeout=120, check=False
    )
    assert f"0 done, {FACES - 1} skipped, 1 failed" in again.stderr


def test_a_cluster_that_is_not_there_is_refused(folders, narrow_bundle, tmp_path):
    run = command(folders, narrow_bundle, tmp_path / "out", "--cluster", "127.0.0.1:1")
    result = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2, result.stderr
    assert "--cluster 127.0.0.1:1" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
