"""Opening a bundle: nothing is parsed whose hash is wrong, and every refusal names the file."""

import json
import shutil

import pytest

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import STAGES, TENSORS


@pytest.fixture
def bundle(tmp_path, narrow_bundle):
    """Return a copy that a test may spoil."""
    return shutil.copytree(narrow_bundle, tmp_path / "bundle")


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_good_bundle_opens_with_its_stages(narrow_bundle):
    opened = open_bundle(narrow_bundle)
    assert opened.manifest.stages == STAGES
    assert all(opened.model(stage) for stage in STAGES)


def test_the_golden_file_has_all_tensors_in_the_table_s_shapes(narrow_bundle):
    golden = open_bundle(narrow_bundle).golden()
    assert set(golden) == set(TENSORS) | {"semantic_margin"}
    for name, tensor in TENSORS.items():
        assert golden[name].shape == tensor.resolve(3, 256, 16)
        assert golden[name].dtype == tensor.dtype
    assert golden["semantic_margin"].shape == (3, 256, 256)
    assert (golden["semantic_margin"] >= 0).all()


def test_a_tampered_graph_is_refused_before_it_is_loaded(bundle):
    path = bundle / "refiner.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"refiner\.onnx: its hash differs"):
        Inpainter.from_bundle(bundle, "cpu", 2)


def test_a_tampered_golden_file_is_refused(bundle):
    with (bundle / "golden.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match=r"golden\.npz: its hash differs"):
        open_bundle(bundle).golden()


def test_a_missing_graph_is_named(bundle):
    (bundle / "mrem.onnx").unlink()
    with pytest.raises(UsageError, match=r"mrem\.onnx: cannot be read"):
        Inpainter.from_bundle(bundle, "cpu", 2)


def test_a_file_that_the_manifest_does_not_list_is_refused(bundle):
    edit_manifest(bundle, sha256={})
    with pytest.raises(UsageError, match=r"coarse\.onnx: its hash differs"):
        open_bundle(bundle).model(STAGES[0])


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="no bundle here"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": null}'])
def test_a_broken_manifest_is_named(bundle, text):
    (bundle / "manifest.json").write_bytes(text)
    with pytest.raises(UsageError, match=r"manifest\.json: not a bundle manifest"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema 2 is newer"),
        ({"schema_version": 2, "field_of_the_future": 1}, "schema 2 is newer"),
        ({"surprise": 1}, "not a bundle manifest"),
        ({"variant": "other"}, "unknown variant 'other'"),
        ({"categories": ["background"]}, "categories differ"),
        ({"categories": 3}, "not a bundle manifest"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(bundle, changes, message):
    edit_manifest(bundle, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        open_bundle(bundle)
    assert "manifest.json" in str(caught.value)


def test_a_manifest_that_lacks_a_field_is_refused(bundle):
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"manifest\.json: not a bundle manifest.*sha256"):
        open_bundle(bundle)


def test_the_digest_follows_the_manifest(bundle, narrow_bundle):
    assert open_bundle(bundle).digest == open_bundle(narrow_bundle).digest
    edit_manifest(bundle, opset=19)
    assert open_bundle(bundle).digest != open_bundle(narrow_bundle).digest
