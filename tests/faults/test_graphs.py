"""Networks are not believed: rows, sizes, types and values are checked at load and at each run, and no run hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

from showface.runtime.backends.batches import Shapes
from showface.runtime.backends.chain import Chain
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.backends.onnxruntime_binding import BoundChain
from showface.runtime.errors import InputError, ShowfaceError, UsageError
from showface.runtime.inpainter import BatchRunner, Inpainter

from .graphs import AT_LOAD, AT_RUN, REFINER, bundle_with, endless, filled, good

SHAPES = Shapes(256, 64)


def session(data):
    return open_session(data, REFINER, None, 1, SHAPES)


def tensors(batch):
    random = np.random.default_rng(0)
    wanted = {name: SHAPES.shape(name, batch) for name in REFINER.inputs}
    return {name: random.random(shape, np.float32) for name, shape in wanted.items()}


class Alone(Chain):
    """A chain of the refiner alone: it sees the image, and no guidance."""

    def run(self, inputs, given=None):
        guidance = tensors(len(inputs["image"]))["guidance"]
        return self.sessions[0].run({"coarse_image": inputs["image"], "mask": inputs["mask"], "guidance": guidance})


def runner(data, limit):
    return BatchRunner(Inpainter(Alone([session(data)], "alone"), 256, ""), limit)


def faces(count):
    return [(np.full((3, 256, 256), k / 8, np.float32), np.ones((1, 256, 256), np.float32)) for k in range(count)]


def test_the_checks_let_a_good_graph_through():
    given = tensors(2)
    np.testing.assert_array_equal(session(good()).run(given)["completed_image"], given["coarse_image"])


@pytest.mark.parametrize("name", AT_RUN)
def test_each_run_is_checked(name):
    data, words = AT_RUN[name]
    with pytest.raises(ShowfaceError, match=rf"stage refiner.*{words}"):
        session(data).run(tensors(2))


@pytest.mark.parametrize("name", AT_LOAD)
def test_the_graph_is_checked_when_it_is_loaded(name):
    with pytest.raises(UsageError, match=r"stage refiner: .*export the bundle again"):
        session(AT_LOAD[name])


@pytest.mark.parametrize("limit", [1, 2, 8])
@pytest.mark.parametrize("name", [name for name in AT_RUN if "row" in name])
def test_no_face_gets_the_pixels_of_another(name, limit):
    """A graph may return one row where one face is alone; then that row is its own."""
    for k, face in enumerate(runner(AT_RUN[name][0], limit).complete(faces(3))):
        if isinstance(face, InputError):
            assert "the networks failed: stage refiner" in str(face)
        else:
            assert name == "one row"
            assert (face == k / 8).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_results_that_are_not_finite_fail_their_face_alone(value):
    first, second = runner(filled(value), 2).complete(faces(2))
    assert "not finite" in str(first)
    assert (second == 1 / 8).all()
    with pytest.raises(InputError, match="not finite"):
        Inpainter.compose(np.zeros((256, 256, 3), np.uint8), np.ones((256, 256), bool), np.full((3, 256, 256), value))


@pytest.mark.parametrize("name", AT_RUN)
def test_tensors_that_stay_on_the_device_are_checked_too(name):
    """The bindings of a chain on a GPU, on the host."""

    def complete():
        bound = BoundChain([session(AT_RUN[name][0])], SHAPES, "bound", "cpu")
        bound.complete(np.zeros((2, 3, 256, 256), np.float32), np.ones((2, 1, 256, 256), np.float32))

    with pytest.raises(ShowfaceError):
        complete()


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "face.png")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    return tmp_path


def command(folder, verb, *arguments):
    options = ["--bundle", folder / "bundle", "--device", "cpu"] if verb == "inpaint" else ["--device", "cpu"]
    return [sys.executable, "-m", "showface.cli", "--threads", "1", verb, *map(str, (*arguments, *options))]


def processor_seconds(process):
    """Return what a process has taken of the processor so far; fails where it has ended."""
    assert process.poll() is None
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads a process's time from /proc")
@pytest.mark.parametrize(("verb", "number"), [("inpaint", signal.SIGTERM), ("validate", signal.SIGINT)])
def test_an_endless_graph_is_stopped_by_the_second_signal(picture, verb, number):
    bundle = bundle_with(picture / "bundle", endless())
    paths = [picture / "face.png", picture / "out.png", "--masks", picture / "mask.png"]
    with subprocess.Popen(command(picture, verb, *(paths if verb == "inpaint" else [bundle]))) as process:
        while processor_seconds(process) < 3:  # imports and loading take a second
            time.sleep(0.1)
        for _ in range(2):
            assert process.poll() is None
            process.send_signal(number)
            time.sleep(1)
        assert process.wait(10) == 128 + number
    assert not (picture / "out.png").exists()


def test_a_graph_that_returns_nothing_fails_the_face(picture):
    bundle_with(picture / "bundle", AT_RUN["no rows"][0])
    paths = [picture / "face.png", picture / "out.png", "--masks", picture / "mask.png"]
    result = subprocess.run(
        command(picture, "inpaint", *paths), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "failed: " in result.stderr
    assert "stage refiner returned 0 faces for 1" in result.stderr
    assert not (picture / "out.png").exists()
