"""Arrays that nobody vouches for: a golden file of any kind is refused before memory is taken for it."""

import io
import json
import resource
import struct
import zipfile

import numpy as np
import pytest

pytest.importorskip("onnx")

from showface.runtime.bundle import default_bundle, open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.untrusted.read import parse_arrays

from .graphs import bundle_with
from .soon import soon


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
    """Return a small file of 300 MiB; it is made in its test, not when tests are collected."""
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
    "a bomb": bomb,
    "many arrays": npz(**{f"a{k}": npy(np.zeros(1)) for k in range(100)}),
    "another name": npz(**{"../../x": npy(np.zeros(1, np.float32))}),
    "cut off": npz(image=npy(np.zeros((1, 3, 256, 256), np.float32)))[:-30],
    "a flipped bit": bytes(b ^ (k == 90) for k, b in enumerate(npz(zipfile.ZIP_STORED, image=npy(np.zeros(9))))),
    "other tensors": npz(image=npy(np.zeros((1, 3, 256, 256), np.float32))),
    "no face": npz(image=npy(np.zeros((0, 3, 256, 256), np.float32))),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_golden_file_of_any_kind_is_refused_before_memory_is_taken(tmp_path, kind):
    data = ARRAYS[kind]
    folder = bundle_with(tmp_path / "b", data() if callable(data) else data, "golden")
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
