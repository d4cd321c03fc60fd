"""What stands around a run: quotas of containers, other processes, streams that are closed, odd arguments."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from showface.runtime.backends.processors import granted, processors, quota
from showface.runtime.bundle import default_bundle
from showface.runtime.errors import InputError
from showface.runtime.inpainter import Inpainter

V2, V1 = "0::{}\n", "4:cpu,cpuacct:{}\n1:name=systemd:/x\n0::/ignored\n"
GROUPS = [
    (V2, "/", {"cpu.max": "200000 100000"}, 2),
    (V2, "/", {"cpu.max": "150000 100000"}, 2),
    (V2, "/", {"cpu.max": "50000 100000"}, 1),
    (V2, "/", {"cpu.max": "max 100000"}, None),
    (V2, "/", {}, None),
    (V2, "/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    (V2, "/a/b", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "300000 100000"}, 1),
    (V2, "/of/the/host", {"cpu.max": "400000 100000"}, 4),
    (V2, "/../../escape", {"cpu.max": "100000 100000"}, 1),
    (V2, "/", {"cpu.max": "nonsense"}, None),
    (V2, "/", {"cpu.max": "100000 0"}, None),
    (V1, "/", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    (V1, "/docker/x", {"cpu/docker/x/cpu.cfs_quota_us": "100000", "cpu/docker/x/cpu.cfs_period_us": "50000"}, 2),
    (V1, "/docker/x", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
]


@pytest.mark.parametrize(("form", "group", "files", "expected"), GROUPS)
def test_the_quota_of_a_container_is_found(tmp_path, form, group, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(form.format(group))
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert quota(tmp_path) == expected
    assert processors(tmp_path) == min(granted(), expected or granted())


def complete(inpainter, seed):
    return inpainter.complete(*task(seed))


def task(seed):
    face = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    return face, np.eye(64, dtype=bool)


def test_an_inpainter_is_sent_to_workers_and_does_the_same_there():
    inpainter = Inpainter.from_bundle(device="cpu", threads=1)
    here = [complete(inpainter, seed) for seed in range(3)]
    copy = pickle.loads(pickle.dumps(inpainter))
    assert copy.bundle_digest == inpainter.bundle_digest
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for seed, there in enumerate(pool.map(complete, [inpainter] * 3, range(3))):
            np.testing.assert_array_equal(there, here[seed])


def test_an_inpainter_of_no_bundle_says_how_to_make_one():
    with pytest.raises(TypeError, match="from_bundle"):
        pickle.dumps(Inpainter(None, 256, ""))


FACE, HOLE = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=bool)
ODD = {
    "a PIL image": (Image.new("RGB", (64, 64)), HOLE),
    "a list": (FACE.tolist(), HOLE),
    "a list as the hole": (FACE, HOLE.tolist()),
    "a PIL hole": (FACE, Image.new("1", (64, 64))),
    "nothing": (None, HOLE),
    "bytes": (FACE.tobytes(), HOLE),
    "a path": ("face.png", HOLE),
    "empty": (np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), bool)),
    "no rows": (np.zeros((0, 64, 3), np.uint8), HOLE),
    "a scalar": (np.uint8(3), HOLE),
    "one axis": (np.zeros(64, np.uint8), HOLE),
    "four axes": (FACE[None], HOLE),
    "two channels": (FACE[..., :2], HOLE),
    "floats": (FACE.astype(np.float32), HOLE),
    "objects": (FACE.astype(object), HOLE),
    "numbers as the hole": (FACE, HOLE.astype(np.uint8) * 255),
    "another size": (FACE, HOLE[:32]),
    "a hole with channels": (FACE, HOLE[..., None]),
    "not square": (FACE[:32], HOLE[:32]),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_arguments_are_named(kind):
    inpainter = Inpainter(None, 256, "")
    with pytest.raises(InputError, match=r"^face 0: "):
        inpainter.complete_batch([ODD[kind]])


@pytest.mark.parametrize("faces", [[FACE], ["x"], [(FACE,)], [(FACE, HOLE, 3)]])
def test_what_is_no_pair_is_named(faces):
    with pytest.raises(InputError, match=r"^face 0: .*pair"):
        Inpainter(None, 256, "").complete_batch(faces)
    assert Inpainter(None, 256, "").complete_batch([]) == []


@pytest.mark.skipif(os.name != "posix", reason="speaks to a shell")
@pytest.mark.parametrize("end", ["2>&-", "2>/dev/full", "2>&1 | head -0", "2>&- <&- >&-"])
def test_a_run_goes_on_without_a_standard_error(tmp_path, end):
    (tmp_path / "in").mkdir()
    for k in range(3):
        Image.fromarray(task(k)[0]).save(tmp_path / "in" / f"{k}.png")
    Image.fromarray(HOLE).save(tmp_path / "mask.png")
    command = f"'{sys.executable}' -m showface.cli --threads 1 inpaint in out --masks mask.png --device cpu {end}"
    shell = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    assert subprocess.run(shell, cwd=tmp_path, timeout=120, check=False).returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png", "results.jsonl"]
    for k in range(3):
        assert np.asarray(Image.open(tmp_path / "out" / f"{k}.png")).shape == (64, 64, 3)


def test_the_default_bundle_is_the_one_that_is_sent():
    made = Inpainter.from_bundle(device="cpu", threads=1)
    assert made.__reduce__()[1][1] == default_bundle().absolute()
