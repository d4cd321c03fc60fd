"""The occluder beside the chain: exported, proved, lowered, and given to a bundle that exists."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import golden_source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.export import parity
from showface.export.bundle import export_bundle
from showface.export.occluder import add_occluder, open_occluder
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.device_kit import write_kit
from showface.runtime.errors import UsageError
from showface.runtime.stages import OCCLUDER, STAGES
from showface.training.checkpoint import occluder_from_checkpoint, save_checkpoint
from showface.training.config import NetworkConfig
from showface.training.networks.folding import round_fused
from showface.training.networks.stages import OccluderStage
from showface.training.occluder.config import OccluderConfig
from showface.training.occluder.network import Occluder

ALLOWED = {
    "Conv",
    "Clip",
    "Add",
    "Mul",
    "Sub",
    "Div",
    "Resize",
    "Sigmoid",
    "ReduceMean",
    "GlobalAveragePool",
    "Relu",
    "Cast",
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A checkpoint of a narrow occluder whose running statistics are not those of a fresh one."""
    torch.manual_seed(3)
    network = Occluder(OccluderConfig(16))
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(2, 3, 64, 64) * 2 - 1)
    model = torch.nn.ModuleDict({"occluder": network.eval()})
    path = tmp_path_factory.mktemp("occluder") / "occluder.safetensors"
    training = {"occluder": {"steps": 1, "config": {"occluder": {"width": 16}}}}
    save_checkpoint(path, model, NetworkConfig(), ["occluder"], training)
    return path


@pytest.fixture(scope="module")
def with_occluder(narrow_bundle, checkpoint, chain_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with") / "bundle"
    figures = add_occluder(open_bundle(narrow_bundle), checkpoint, folder, chain_inputs, 1)
    return folder, figures


def test_a_bundle_gets_an_occluder_that_equals_pytorch(with_occluder, narrow_bundle, checkpoint, chain_inputs):
    folder, figures = with_occluder
    assert figures["precision"] == "float32"
    assert figures["max_abs"] < 1e-4
    opened, before = open_bundle(folder), open_bundle(narrow_bundle)
    assert opened.manifest.graphs == (*STAGES, OCCLUDER)
    assert opened.manifest.stages == STAGES
    assert opened.manifest.occluder == {"checkpoint_sha256": open_occluder(checkpoint).weights_sha256}
    assert all(opened.model(stage) == before.model(stage) for stage in STAGES)
    chain = open_chain(opened, "cpu", 1)
    image = chain_inputs[0]
    together = chain.occluder.run({"image": image})["occlusion"]
    assert together.shape == (3, 1, 256, 256)
    assert (together >= 0).all()
    assert (together <= 1).all()
    for k in range(3):  # a face does not depend on its neighbours
        np.testing.assert_array_equal(chain.occluder.run({"image": image[k : k + 1]})["occlusion"], together[k : k + 1])


def test_folding_changes_nothing_but_the_rounding(checkpoint):
    plain, _ = occluder_from_checkpoint(checkpoint)
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        before = torch.sigmoid(plain(image))
        after = torch.sigmoid(round_fused(plain)(image))
    torch.testing.assert_close(after, before, rtol=0, atol=5e-3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    assert all(torch.equal(weight, weight.half().float()) for weight in plain.parameters())


def test_the_graph_has_plain_operators_and_half_the_bytes(with_occluder):
    proto = onnx.load(with_occluder[0] / "occluder.onnx")
    assert {node.op_type for node in proto.graph.node} <= ALLOWED
    weights = sum(np.prod(i.dims) for i in proto.graph.initializer)
    assert len(proto.SerializeToString()) < 2.6 * weights + 120_000
    assert proto.opset_import[0].version == 18


def compared(bundle, precision="float32"):
    reference, case = golden_source(bundle)
    candidate = source_of_bundle(bundle, open_chain(bundle, "cpu", 1))
    tolerances = plan_tolerances(candidate.identity.precision, None, {})
    return compare_sources(reference, candidate, [case], tolerances).result


def test_the_golden_file_proves_it_and_convicts_another_graph(with_occluder, tmp_path):
    good = compared(open_bundle(with_occluder[0]))
    assert good["passed"]
    assert good["stages"]["occluder"]["passed"]
    assert good["not_compared"] == []
    assert "occlusion" not in good["chain"]["tensors"]
    from fixtures.occluder import green_graph

    broken = tmp_path / "broken"
    shutil.copytree(with_occluder[0], broken)
    (broken / "occluder.onnx").write_bytes(green_graph())
    manifest = json.loads((broken / "manifest.json").read_text())
    import hashlib

    manifest["sha256"]["occluder.onnx"] = hashlib.sha256(green_graph()).hexdigest()
    (broken / "manifest.json").write_text(json.dumps(manifest))
    bad = compared(open_bundle(broken))
    assert not bad["passed"]
    assert not bad["stages"]["occluder"]["passed"]
    assert all(bad["stages"][stage.name]["passed"] for stage in STAGES)


def test_a_side_without_an_occluder_is_named(with_occluder, narrow_bundle):
    reference = source_of_bundle(open_bundle(narrow_bundle), open_chain(open_bundle(narrow_bundle), "cpu", 1))
    candidate = source_of_bundle(open_bundle(with_occluder[0]), open_chain(open_bundle(with_occluder[0]), "cpu", 1))
    _, case = golden_source(open_bundle(with_occluder[0]))
    tolerances = plan_tolerances(candidate.identity.precision, None, {})
    result = compare_sources(reference, candidate, [case], tolerances).result
    assert result["passed"]
    assert "occluder" not in result["stages"]
    assert [text.split(":")[0] for text in result["not_compared"]] == ["occluder was not compared"]


def test_export_makes_both_precisions(
    narrow_checkpoint, checkpoint, chain_inputs, tmp_path, monkeypatch, traces_what_differs
):
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1, 2))
    with traces_what_differs():
        report = export_bundle(narrow_checkpoint, tmp_path / "b", chain_inputs, 1, "fp16", checkpoint)
    assert report["stages"]["occluder"]["passed"]
    assert report["float16"]["stages"]["occluder"]["passed"]
    opened = open_bundle(tmp_path / "b")
    assert opened.manifest.precision["occluder"] == "float16"
    assert "occlusion" in opened.golden()
    assert compared(opened)["passed"]


def test_the_kit_takes_it_along(with_occluder, tmp_path):
    import zipfile

    write_kit(open_bundle(with_occluder[0]), tmp_path / "kit.zip")
    assert "occluder.onnx" in zipfile.ZipFile(tmp_path / "kit.zip").namelist()


def test_what_is_wrong_is_said(with_occluder, narrow_bundle, narrow_checkpoint, checkpoint, chain_inputs, tmp_path):
    with pytest.raises(UsageError, match="wanted: showface train occluder"):
        add_occluder(open_bundle(narrow_bundle), narrow_checkpoint, tmp_path / "b", chain_inputs, 1)
    with pytest.raises(UsageError, match="exists already"):
        add_occluder(open_bundle(narrow_bundle), checkpoint, narrow_bundle, chain_inputs, 1)
    for change, said in (({"occluder": {}}, "'occluder' must be an object"), ({"precision": {}}, "'precision'")):
        folder = tmp_path / said.strip("'").split("'")[0]
        shutil.copytree(with_occluder[0], folder)
        manifest = {**json.loads((folder / "manifest.json").read_text()), **change}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match=said):
            open_bundle(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("side", [96, 160, 192, 256])
def test_the_stage_looks_at_the_resolution_that_it_was_trained_at(side):
    network = Occluder(OccluderConfig(16, side)).eval()
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        found = OccluderStage(network)(image)
        small = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
        wanted = torch.sigmoid(F.interpolate(network(small), (256, 256), mode="bilinear", align_corners=False))
    assert found.shape == (1, 1, 256, 256)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
