"""Files that nobody vouches for, as each thing that is read: one error of one line, soon, and no memory for it."""

import functools
import io
import json
import os
import resource
import struct
import threading
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from safetensors.torch import save

from showface.calibration.planning.plan import read_plan
from showface.evaluation.parity.compare import read_result
from showface.evaluation.parity.saved_outputs import open_outputs
from showface.runtime.batch.results_log import read_results
from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.faces.landmarks import DetectedFaces, read_landmarks, yunet
from showface.runtime.images.codec import read_photo
from showface.runtime.untrusted.read import parse_arrays, read_file
from showface.training.checkpoint import METADATA_KEY, model_from_checkpoint, read_checkpoint, save_checkpoint
from showface.training.config import TrainConfig
from showface.training.config_reader import config_from_toml
from showface.training.data.sample_cache import read_record
from showface.training.run_files import load_state, save_state
from showface.training.weight_files import read_safetensors, unpickle_weights

from .graphs import bundle_with

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


def soon(action):
    """Return the error that an action raises within ten seconds."""
    raised = []

    def run():
        try:
            action()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    return raised[0] if raised else None


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


# Arrays


def npz(compression=zipfile.ZIP_DEFLATED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array=None, head=None, body=b""):
    if head is not None:
        head = head.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(shape, kind="'<f4'"):
    return npy(head=f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}")


def bomb():
    buffer = io.BytesIO()
    archive = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("image.npy", "w") as member:
        member.write(header((300, 2**20), "'<u1'"))
        for _ in range(300):
            member.write(bytes(2**20))
    return buffer.getvalue()


ARRAYS = {
    "text": b"hello",
    "empty": b"",
    "a pickle": b"\x80\x04K\x01.",
    "one array": npy(np.zeros(3)),
    "objects": npz(image=npy(np.array([{}], object))),
    "10^12 values": npz(image=header((10**6, 10**6))),
    "a size beyond 64 bits": npz(image=header((2**62, 2**62))),
    "a negative size": npz(image=header((-1, 3))),
    "truth as a size": npz(image=header((True, 3))),
    "a fraction as a size": npz(image=header((1.5,))),
    "letters of 4 GB": npz(image=header((1,), "'<U999999999'")),
    "no type": npz(image=header((1,), "'nonsense'")),
    "a type of fields": npz(image=header((1,), "[('a', '<f4', (100000000,))]")),
    "code": npz(image=npy(head="__import__('os').system('true')")),
    "deep": npz(image=npy(head="(" * 110)),
    "a long header": npz(image=b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 100),
    "version 9": npz(image=b"\x93NUMPY\x09\x00" + bytes(100)),
    "shorter than it says": npz(image=header((3,))),
    "longer than it says": npz(image=npy(np.zeros(3, np.float32)) + bytes(100)),
    "a bomb": bomb(),
    "many arrays": npz(**{f"a{k}": npy(np.zeros(1)) for k in range(100)}),
    "another name": npz(**{"../../x": npy(np.zeros(1, np.float32))}),
    "cut off": npz(image=npy(np.zeros((1, 3, 256, 256), np.float32)))[:-30],
    "a flipped bit": bytes(b ^ (k == 90) for k, b in enumerate(npz(zipfile.ZIP_STORED, image=npy(np.zeros(9))))),
    "other tensors": npz(image=npy(np.zeros((1, 3, 256, 256), np.float32))),
    "no face": npz(image=npy(np.zeros((0, 3, 256, 256), np.float32))),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_golden_file_of_any_kind_is_refused_before_memory_is_taken(tmp_path, kind):
    folder = bundle_with(tmp_path / "b", ARRAYS[kind], "golden")
    (folder / "golden.onnx").rename(folder / "golden.npz")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["golden.npz"] = manifest["sha256"].pop("golden.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = soon(open_bundle(folder).golden)
    assert isinstance(error, ShowfaceError), error
    assert error.exit_code == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


WRONG = {
    "an image that is not a number": ("image", np.nan, r"image holds values outside \[-1, 1\]"),
    "an image of 0 to 255": ("image", 255.0, r"image holds values outside \[-1, 1\]"),
    "half a hole": ("mask", 0.5, "mask holds values other than 0 and 1"),
    "a mask that is not a number": ("mask", np.nan, "mask holds values other than 0 and 1"),
    "an answer that is not a number": ("guidance", np.inf, "guidance holds values that are not finite"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_golden_values_that_no_face_gives_are_refused(tmp_path, kind):
    name, value, words = WRONG[kind]
    golden = dict(np.load(default_bundle() / "golden.npz"))
    golden[name].flat[5] = value
    data = io.BytesIO()
    np.savez(data, **golden)
    folder = bundle_with(tmp_path / "b", data.getvalue(), "golden")
    (folder / "golden.onnx").rename(folder / "golden.npz")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["golden.npz"] = manifest["sha256"].pop("golden.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ShowfaceError, match=rf"golden\.npz: not the tensors of this bundle: {words}") as refused:
        open_bundle(folder).golden()
    assert refused.value.exit_code == 2


def test_good_arrays_are_those_of_numpy():
    given = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.asfortranarray(np.ones((3, 2), np.float32)),
        "c": np.zeros((0, 4)),
    }
    for write in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        write(buffer, **given)
        for name, array in parse_arrays(buffer.getvalue(), lambda headers: None).items():
            np.testing.assert_array_equal(array, given[name])
            assert array.dtype == given[name].dtype
    with pytest.raises(ValueError, match="more than 0 MiB"):
        parse_arrays(buffer.getvalue(), lambda headers: None, limit=40)


# Checkpoints


@pytest.fixture(scope="module")
def small():
    from fixtures.models import build_narrow

    return build_narrow()


def changed(path, target, **changes):
    """Write a copy of a checkpoint whose header says something else, digest left out."""
    tensors, metadata = read_safetensors(path)
    found = {**json.loads(metadata[METADATA_KEY]), **changes}
    found.pop("sha256")
    target.write_bytes(save(tensors, {METADATA_KEY: json.dumps(found)}))
    return target


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, small, small.config, [name for name, _ in small.named_children()], {"steps": 1})
    return path


def network(checkpoint, **parts):
    config = json.loads(read_safetensors(checkpoint)[1][METADATA_KEY])["network"]
    for name, value in parts.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    return config


NETWORKS = [
    {"memory": {"slots": 10**12}}, {"memory": {"slots": 16000}}, {"memory": {"slots": 0}},
    {"memory": {"temperature": float("nan")}}, {"memory": {"kind": "\x1b[31m"}}, {"memory": None},
    {"parser": {"width": -5}}, {"parser": {"width": 1.5}}, {"parser": {"width": True}}, {"coarse": {"widths": []}},
    {"coarse": {"widths": [8] * 10**5}}, {"coarse": {"widths": [16000] * 4}}, {"coarse": {"surprise": 1}},
    {"refiner": {"dilations": [0]}}, {"refiner": []}, {"image_size": 10**8}, {"mrem": {"patch_size": 0}},
]  # fmt: skip


@pytest.mark.parametrize("parts", NETWORKS, ids=str)
def test_a_config_that_asks_for_anything_is_compared_before_memory_is_taken(checkpoint, tmp_path, parts):
    path = changed(checkpoint, tmp_path / "x.safetensors", network=network(checkpoint, **parts))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = soon(lambda: model_from_checkpoint(path))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert isinstance(error, ShowfaceError), error
    assert error.exit_code == 2
    assert str(error).isprintable()
    assert memory < 400 * 1024


HEADERS = [
    {"schema_version": 2}, {"schema_version": "1"}, {"schema_version": True}, {"schema_version": 10**30},
    {"network": []}, {"categories": 5}, {"categories": [[]]}, {"stages": {}}, {"stages": [5]}, {"stages": []},
    {"training": []}, {"surprise": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_a_header_of_another_kind_is_refused(checkpoint, tmp_path, changes):
    path = changed(checkpoint, tmp_path / "x.safetensors", **changes)
    error = soon(lambda: model_from_checkpoint(path))
    assert isinstance(error, ShowfaceError), error
    assert error.exit_code == 2


def test_one_flipped_bit_of_a_checkpoint_is_found(checkpoint, tmp_path):
    data, random, path = checkpoint.read_bytes(), np.random.default_rng(0), tmp_path / "x.safetensors"
    size = int.from_bytes(data[:8], "little")
    places = [*random.integers(8, 8 + size, 8), *random.integers(8 + size, len(data), 8)]
    assert soon(lambda: read_checkpoint(checkpoint)) is None
    for place in places:
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(random.integers(8))
        path.write_bytes(spoiled)
        assert isinstance(soon(lambda: read_checkpoint(path)), ShowfaceError), place


def test_a_graph_of_a_bundle_is_told_from_a_checkpoint(narrow_bundle):
    with pytest.raises(UsageError, match=r"coarse\.onnx: cannot be read as safetensors: .*; to name a bundle, give its"):
        read_checkpoint(narrow_bundle / "coarse.onnx")


def test_a_checkpoint_of_an_older_version_is_read(checkpoint, tmp_path):
    path = changed(checkpoint, tmp_path / "x.safetensors")
    assert read_checkpoint(path).sha256 == read_checkpoint(checkpoint).sha256


class Plain:
    """A config without fields: what a state is compared with."""


def test_one_flipped_bit_of_a_training_state_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("showface.training.run_files.asdict", lambda config: {})
    state = {"step": 3, "weights": torch.arange(3000.0), "name": "x"}
    save_state(tmp_path, Plain(), state)
    data, random = (tmp_path / "state.pt").read_bytes(), np.random.default_rng(0)
    assert load_state(tmp_path, Plain())["step"] == 3
    for place in random.integers(0, len(data), 100):
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(random.integers(8))
        (tmp_path / "state.pt").write_bytes(spoiled)
        assert isinstance(soon(lambda: load_state(tmp_path, Plain())), ShowfaceError), place
    for cut in (0, 1, 100, len(data) - 1, len(data) - 40):
        (tmp_path / "state.pt").write_bytes(data[:cut])
        assert isinstance(soon(lambda: load_state(tmp_path, Plain())), ShowfaceError) or cut == len(data) - 40
    torch.save({"config": {}, **state}, tmp_path / "state.pt")  # as an older version did
    assert load_state(tmp_path, Plain())["step"] == 3


def test_the_default_bundle_is_good():
    bundle = open_bundle(default_bundle())
    assert all(bundle.model(stage) for stage in bundle.manifest.graphs)
    assert bundle.golden()
