"""Files that nobody vouches for, as each thing that is read: one error of one line, soon, and no memory for it."""

import functools
import os
import resource
import struct

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from showface.calibration.planning.plan import read_plan
from showface.evaluation.parity.compare import read_result
from showface.evaluation.parity.saved_outputs import open_outputs
from showface.runtime.batch.results_log import read_results
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.faces.landmarks import DetectedFaces, read_landmarks, yunet
from showface.runtime.images.codec import read_photo
from showface.runtime.untrusted.read import read_file
from showface.training.checkpoint import read_checkpoint
from showface.training.config import TrainConfig
from showface.training.config_reader import config_from_toml
from showface.training.data.sample_cache import read_record
from showface.training.run_files import load_state
from showface.training.weight_files import read_safetensors, unpickle_weights

from .soon import soon

READERS = {
    "manifest.json": lambda path: open_bundle(path.parent),
    "faces.json": read_landmarks,
    "faces.csv": read_landmarks,
    "yunet.onnx": yunet,
    "detector.onnx": lambda path: DetectedFaces(path).open(),
    "outputs.json": lambda path: open_outputs(path.parent),
    "result.json": read_result,
    "plan.toml": lambda path: read_plan(path, lambda _: {}),
    "train.toml": lambda path: config_from_toml(TrainConfig, path),
    "model.safetensors": read_checkpoint,
    "vgg.safetensors": read_safetensors,
    "state.pt": lambda path: load_state(path.parent, None),
    "vgg.pth": lambda path: unpickle_weights(path, "00", "the published file"),
    "face.png": read_photo,
    "samples.json": lambda path: read_record(path.parent),
}
DEEP = b"[" * 200_000
CONTENTS = {
    "empty": b"",
    "text": b"what this is not",
    "no UTF-8": b"\xff\xfe\xfa\x00",
    "UTF-16": '{"schema_version": 1}'.encode("utf-16"),
    "zeros": bytes(1000),
    "deep": DEEP,
    "deep objects": b'{"a":' * 100_000,
    "a number of digits": b'{"schema_version": ' + b"9" * 10_000 + b"}",
    "not a number": b'{"schema_version": NaN, "a": Infinity}',
    "beyond any float": b'{"schema_version": 1e999}',
    "a list": b"[1, 2, 3]",
    "a word": b'"word"',
    "null": b"null",
    "half a surrogate": b'{"schema_version": "\\ud800", "\\udfff": []}',
    "escapes": b'{"schema_version": "\\u001b]0;x\\u0007\\n"}',
    "a large header": struct.pack("<Q", 2**62) + b"{}",
    "a header of another": struct.pack("<Q", 8) + b'{"a": 5}',
    "TOML deep": b"a = " + DEEP,
    "TOML digits": b"steps = " + b"9" * 10_000,
    "a zip of nothing": b"PK\5\6" + bytes(18),
}


def no_regular(path, kind):
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "terminal":
        path.symlink_to("/dev/tty")
    elif kind == "folder":
        path.mkdir()
    elif kind == "nothing":
        path.symlink_to("missing")
    elif kind == "itself":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(2**44 if kind == "endless" else 2**35 + 1)


@pytest.mark.parametrize("kind", ["FIFO", "device", "terminal", "folder", "nothing", "itself", "sparse", "endless"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_of_any_size_is_refused(tmp_path, name, kind):
    path = tmp_path / name
    try:
        no_regular(path, kind)
    except OSError:
        pytest.skip("the file system takes no such file")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = soon(functools.partial(READERS[name], path))
    assert isinstance(error, ShowfaceError), error
    assert str(error).isprintable()
    assert name in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", READERS)
def test_whatever_a_file_holds_is_one_sentence(tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(CONTENTS[kind])
    error = soon(functools.partial(READERS[name], path))
    assert isinstance(error, ShowfaceError) or (error is None and name.startswith("faces")), error
    assert len(str(error)) < 2000


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_log_is_read_past_whatever_it_holds(tmp_path, kind):
    path, good = tmp_path / "results.jsonl", b'\n{"input": "a.png", "output": "a.png", "status": "done"}\n'
    path.write_bytes(CONTENTS[kind] + good + b"x" * 3_000_000 + good)
    assert [result.input for result in read_results(path)] == ["a.png", "a.png"]


@pytest.mark.parametrize("name", ["../outside", "a/b", "\0", "x" * 300, "\ud800", "/dev/zero"])
def test_names_that_no_file_may_have(tmp_path, name):
    assert isinstance(soon(lambda: read_file(tmp_path / name)), ShowfaceError)


def test_the_default_bundle_is_good():
    bundle = open_bundle(default_bundle())
    assert all(bundle.model(stage) for stage in bundle.manifest.graphs)
    assert bundle.golden()
