"""Opening a bundle: nothing is parsed whose hash is wrong, and every refusal names the file."""

import json
import shutil

import pytest

from showface.runtime.bundle import Bundle, open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import OCCLUDER, STAGES, TENSORS

WITHOUT_MREM = ("coarse", "parser", "memory", "refiner")


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
    assert set(golden) == set(TENSORS) - {*OCCLUDER.outputs} | {"semantic_margin"}
    for name, tensor in ((name, TENSORS[name]) for name in golden if name != "semantic_margin"):
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
    digests = json.loads((bundle / "manifest.json").read_text())["sha256"]
    edit_manifest(bundle, sha256={name: digest for name, digest in digests.items() if name != "golden.npz"})
    with pytest.raises(UsageError, match=r"golden\.npz: its hash differs"):
        open_bundle(bundle).golden()


def test_the_golden_file_is_read_once(bundle, monkeypatch):
    """The bytes that were hashed are those that are parsed."""
    opened, read = open_bundle(bundle), Bundle.read

    def read_then_spoil(self, name):
        data = read(self, name)
        (bundle / name).write_bytes(b"another file by now")
        return data

    monkeypatch.setattr(Bundle, "read", read_then_spoil)
    assert set(opened.golden()) == set(TENSORS) - {*OCCLUDER.outputs} | {"semantic_margin"}


def test_a_graph_of_another_stage_is_refused(bundle):
    shutil.copy(bundle / "parser.onnx", bundle / "refiner.onnx")
    digests = json.loads((bundle / "manifest.json").read_text())["sha256"]
    edit_manifest(bundle, sha256={**digests, "refiner.onnx": digests["parser.onnx"]})
    with pytest.raises(UsageError, match="stage refiner: the graph has the inputs and outputs"):
        Inpainter.from_bundle(bundle, "cpu", 2)


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
        ({"schema_version": 0}, "'schema_version' is 0"),
        ({"schema_version": -1}, "'schema_version' is -1"),
        ({"schema_version": 1.9}, r"'schema_version' is 1\.9"),
        ({"schema_version": True}, "'schema_version' is True"),
        ({"schema_version": "1"}, "'schema_version' is '1'"),
        ({"surprise": 1}, "'surprise' is unknown"),
        ({"variant": "other"}, "'variant' 'other' is unknown"),
        ({"variant": ["full"]}, "'variant' must be a text"),
        ({"variant": "no-memory"}, "'precision' does not name the stages"),
        ({"variant": "no-memory", "precision": dict.fromkeys(WITHOUT_MREM, "float32")}, "'sha256' does not list"),
        ({"categories": ["background"]}, "categories differ"),
        ({"categories": 3}, "'categories' must be a list"),
        ({"image_size": "256"}, "'image_size' must be a whole number"),
        ({"image_size": 0}, "'image_size' must be a whole number"),
        ({"code_channels": 1.5}, "'code_channels' must be a whole number"),
        ({"opset": None}, "'opset' must be a whole number"),
        ({"precision": {}}, "'precision' does not name the stages"),
        ({"precision": ["float32"]}, "'precision' must be an object"),
        ({"precision": {"coarse": 32}}, "'precision' must be an object"),
        ({"sha256": {}}, "'sha256' does not list"),
        ({"sha256": None}, "'sha256' must be an object"),
        ({"versions": 3}, "'versions' must be an object"),
        ({"checkpoint_sha256": 3}, "'checkpoint_sha256' must be a text"),
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
