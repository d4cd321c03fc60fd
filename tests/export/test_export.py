"""From a checkpoint to a bundle: what is written, what is proved, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file

import showface.export.bundle as exporter
from showface.export import parity
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import CATEGORIES, STAGES, TENSORS
from showface.training.checkpoint import METADATA_KEY, model_from_checkpoint, read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = {f"{stage.name}.onnx" for stage in STAGES}


def rewrite(source, target, edit):
    """Copy a checkpoint after ``edit(weights, header)`` has changed it in place."""
    with safe_open(source, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(file.metadata()[METADATA_KEY])
    edit(weights, header)
    header.pop("sha256")  # as checkpoints of before have it
    save_file(weights, target, {METADATA_KEY: json.dumps(header)})
    return target


def test_the_manifest_describes_the_bundle_and_every_hash_is_right(narrow_bundle, narrow_checkpoint):
    manifest = json.loads((narrow_bundle / "manifest.json").read_text())
    assert {p.name for p in narrow_bundle.iterdir()} == FILES | {"golden.npz", "manifest.json"}
    assert set(manifest["sha256"]) == FILES | {"golden.npz"}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((narrow_bundle / name).read_bytes()).hexdigest() == digest
    assert manifest["schema_version"] == 1
    assert manifest["variant"] == "full"
    assert (manifest["image_size"], manifest["code_channels"], manifest["opset"]) == (256, 16, 18)
    assert tuple(manifest["categories"]) == CATEGORIES
    assert manifest["weights_dtype"] == "float16"
    assert manifest["precision"] == {stage.name: "float32" for stage in STAGES}
    assert [s["name"] for s in manifest["stages"]] == [stage.name for stage in STAGES]
    assert manifest["checkpoint_sha256"] == read_checkpoint(narrow_checkpoint).weights_sha256
    assert set(manifest["versions"]) == {"showface", "torch", "onnx"}


def test_the_report_of_an_export_has_passed_in_every_stage_and_the_chain(narrow_report):
    report = narrow_report[1]
    assert parity.PARITY_BATCHES == (1, 2, 8)
    assert report["passed"] is True
    assert set(report["stages"]) == {stage.name for stage in STAGES}
    assert all(figures["passed"] and figures["max_abs"] <= 1e-4 for figures in report["stages"].values())
    assert report["chain"]["passed"]


def test_a_wrong_graph_is_refused_and_leaves_nothing_behind(
    narrow_bundle, narrow_checkpoint, chain_inputs, tmp_path, monkeypatch
):
    changed = []

    def stored_stage(module, stage, config, half_weights):
        proto = onnx.load(narrow_bundle / f"{stage.name}.onnx")
        for initializer in proto.graph.initializer:
            if stage.name == "refiner" and "detail.head.conv.weight" in initializer.name:
                values = numpy_helper.to_array(initializer).copy()
                values.flat[0] += 0.25
                initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
                changed.append(initializer.name)
        return proto

    monkeypatch.setattr(exporter, "export_stage", stored_stage)
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))
    with pytest.raises(ShowfaceError, match="differs from PyTorch") as caught:
        exporter.export_bundle(narrow_checkpoint, tmp_path / "bundle", chain_inputs, 2)
    assert not isinstance(caught.value, UsageError)
    assert len(changed) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_tracing_leaves_nothing_behind(narrow_checkpoint, chain_inputs, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("tracing broke")

    monkeypatch.setattr(exporter, "export_stage", broken)
    with pytest.raises(RuntimeError, match="tracing broke"):
        exporter.export_bundle(narrow_checkpoint, tmp_path / "bundle", chain_inputs)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_is_refused_and_kept(narrow_checkpoint, chain_inputs, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        exporter.export_bundle(narrow_checkpoint, tmp_path, chain_inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["keep.txt"]


def test_no_local_path_leaks_into_a_graph(narrow_bundle):
    for name in FILES:
        data = (narrow_bundle / name).read_bytes()
        for secret in (b"stack_trace", str(REPOSITORY).encode(), str(Path.home()).encode() + b"/", b"site-packages"):
            assert secret not in data, name


def test_the_nodes_keep_the_names_of_their_modules(narrow_bundle):
    for stage, module in (("refiner", "detail.head"), ("coarse", "encoder.0"), ("parser", "parser")):
        graph = onnx.load(narrow_bundle / f"{stage}.onnx").graph
        scopes = [p.value for node in graph.node for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        assert any(module in scope for scope in scopes), stage


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_graph_has_opset_18_and_only_the_batch_is_dynamic(narrow_bundle, stage):
    proto = onnx.load(narrow_bundle / f"{stage.name}.onnx")
    assert {i.domain: i.version for i in proto.opset_import}[""] == 18
    assert [i.name for i in proto.graph.input] == list(stage.inputs)
    assert [o.name for o in proto.graph.output] == list(stage.outputs)
    for value in (*proto.graph.input, *proto.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        assert first.dim_param, value.name
        assert tuple(d.dim_value for d in others) == TENSORS[value.name].resolve(1, 256, 16)[1:]


def test_a_graph_runs_at_a_batch_it_was_not_traced_with(narrow_bundle):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(narrow_bundle / "coarse.onnx", options, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 5):
        image, mask = np.zeros((batch, 3, 256, 256), np.float32), np.zeros((batch, 1, 256, 256), np.float32)
        assert session.run(None, {"image": image, "mask": mask})[0].shape == (batch, 3, 256, 256)


def test_each_ablation_exports_and_passes(ablation):
    variant, _, folder, report = ablation
    assert report["passed"]
    manifest = open_bundle(folder).manifest
    assert manifest.variant == variant
    assert set(report["stages"]) == {stage.name for stage in manifest.stages}


KEY = "refiner.detail.head.conv.bias"


def drop_key(weights, header):
    del weights[KEY]


def add_key(weights, header):
    weights["refiner.surplus"] = weights[KEY].clone()


def cut_key(weights, header):
    weights[KEY] = weights[KEY][:2].clone()


def raise_schema(weights, header):
    header["schema_version"] = 99


def drop_stage(weights, header):
    header["stages"].remove("mrem")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (drop_key, f"missing key '{KEY}'"),
        (add_key, "unexpected key 'refiner.surplus'"),
        (cut_key, f"'{KEY}' has shape (2,)"),
        (raise_schema, "schema 99 is newer"),
        (drop_stage, "but not mrem"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(edit, named, narrow_checkpoint, tmp_path):
    path = rewrite(narrow_checkpoint, tmp_path / "edited.safetensors", edit)
    with pytest.raises(UsageError) as caught:
        model_from_checkpoint(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "junk.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(UsageError, match=r"junk\.safetensors"):
        read_checkpoint(path)
