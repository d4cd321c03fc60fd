"""A disk that is really full: a small one of its own, mounted where only the tested process sees it."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

MOUNTED = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && "$@"; code=$?; cp -r "$PLACE" "$KEPT"; exit $code'


def on_a_disk(size, place, kept, command):
    """Run a command while ``place`` is a disk of ``size``; what it holds at the end is copied to ``kept``."""
    words = ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", size, str(place), *map(str, command)]
    environment = {**os.environ, "PLACE": str(place), "KEPT": str(kept)}
    return subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env=environment)


@pytest.fixture(scope="module", autouse=True)
def _may_mount(tmp_path_factory):
    place = tmp_path_factory.mktemp("disk")
    try:
        mounted = on_a_disk("64k", place, place.with_name("kept"), ["true"])
    except OSError:
        pytest.skip("there is no unshare")
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def showface(*arguments):
    return [sys.executable, "-m", "showface.cli", "--threads", "1", *arguments]


def test_a_folder_run_on_a_full_disk_ends_and_goes_on(tmp_path, place, narrow_bundle, faces):
    (tmp_path / "in").mkdir()
    for k in range(6):
        noise = np.random.default_rng(k).integers(0, 256, (256, 256, 3), np.uint8)  # 200 kB a picture
        Image.fromarray(noise).save(tmp_path / "in" / f"{k}.png")
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(tmp_path / "mask.png")
    options = ["--masks", tmp_path / "mask.png", "--bundle", narrow_bundle, "--device", "cpu", "--batch-size", "1"]
    command = showface("inpaint", tmp_path / "in", place / "out", *options)
    result = on_a_disk("700k", place, tmp_path / "kept", command)
    assert result.returncode == 1, result.stderr
    assert "No space left on device; make room and run the same again" in result.stderr
    assert "Traceback" not in result.stderr
    out = tmp_path / "kept" / "out"
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines() if line.startswith("{")]
    done = {line["output"] for line in lines if line["status"] == "done"}
    assert {path.name for path in out.glob("*.png")} >= done
    assert 1 <= len(done) < 6
    again = subprocess.run(
        showface("inpaint", tmp_path / "in", out, *options), capture_output=True, text=True, timeout=600, check=False
    )
    assert again.returncode == 0, again.stderr
    assert f"{6 - len(done)} done, {len(done)} skipped, 0 failed" in again.stderr
    assert len(list(out.glob("*.png"))) == 6
    assert not (out / ".showface").exists()


TRAIN = """
import pickle, sys
from pathlib import Path

from showface.runtime.errors import ShowfaceError
from showface.training.process import make_fabric
from showface.training.run.loop import train

config, data, output = map(Path, sys.argv[1:])
try:
    train("coarse", pickle.loads(config.read_bytes()), data, output, False, make_fabric("cpu", 1, "fp32"))
except ShowfaceError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_training_on_a_full_disk_says_so_and_is_resumed(tmp_path, place, data, config, monkeypatch):
    import torch

    from showface.training.process import make_fabric
    from showface.training.run.loop import train

    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # others sum in another order
    run, fabric = config(6, checkpoint_every=1), make_fabric("cpu", 1, "fp32")
    (tmp_path / "config").write_bytes(pickle.dumps(run))
    whole, kept = tmp_path / "whole", tmp_path / "kept" / "run"
    train("coarse", run, data, whole, False, fabric)
    needed = sum(path.stat().st_size for path in whole.iterdir())
    # Room for what a finished run holds, and not for a second state beside it while that is written.
    command = [sys.executable, "-c", TRAIN, tmp_path / "config", data, place / "run"]
    result = on_a_disk(f"{int(needed * 1.2) // 1024}k", place, tmp_path / "kept", command)
    assert result.returncode == 1, (result.returncode, result.stderr)
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path.name for path in kept.iterdir() if "tmp" in path.name]
    assert (kept / "state.pt").is_file()  # of the step before, whole
    train("coarse", run, data, kept, True, fabric)
    assert (kept / "coarse.safetensors").read_bytes() == (whole / "coarse.safetensors").read_bytes()


SAMPLES = """
import sys
from pathlib import Path

from showface.runtime.errors import ShowfaceError
from showface.training.data.sample_cache import create_arrays

try:
    create_arrays(Path(sys.argv[1]), 20, 64)
except ShowfaceError as error:
    sys.exit(str(error))
"""


def test_samples_that_the_disk_cannot_hold_are_not_begun(tmp_path, place):
    result = on_a_disk("200k", place, tmp_path / "kept", [sys.executable, "-c", SAMPLES, place / "samples"])
    assert result.returncode == 1, (result.returncode, result.stderr)
    assert result.stderr.strip() == f"{place / 'samples' / 'image.npy'}: cannot be written: No space left on device"
    assert not list((tmp_path / "kept" / "samples").iterdir())
