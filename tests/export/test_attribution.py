"""A fault that is planted in a module of the graph is found in that module."""

import hashlib
import json
import shutil
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.torch_source import source_of_checkpoint
from showface.export.attribution import (
    ROUNDING,
    ModuleFigures,
    _figures,
    attribute_stages,
    compare_modules,
    first_jump,
    marked_model,
)
from showface.runtime.bundle import open_bundle
from showface.runtime.stages import STAGES

STAGE = {stage.name: stage for stage in STAGES}


@pytest.fixture(scope="module")
def origin(narrow_checkpoint):
    return source_of_checkpoint(narrow_checkpoint)


@pytest.fixture(scope="module")
def tensors(origin, chain_inputs):
    return origin.chain(Case("face", {"image": chain_inputs[0][:1], "mask": chain_inputs[1][:1]}))


@pytest.fixture(scope="module")
def compare(narrow_bundle, origin, tensors):
    """Return a function that compares the modules of a stage whose graph ``edit`` has changed."""

    def run(stage, edit=lambda proto: None):
        proto = onnx.load(narrow_bundle / f"{stage}.onnx")
        edit(proto)
        return compare_modules(proto, STAGE[stage], origin.modules()[stage], tensors)

    return run


def disturb(name, amount=0.5):
    """Return an edit that adds ``amount`` to an initializer."""

    def edit(proto):
        found = [i for i in proto.graph.initializer if i.name.removesuffix(".float16") == name]
        assert len(found) == 1, name
        values = numpy_helper.to_array(found[0])
        found[0].CopyFrom(numpy_helper.from_array((values + amount).astype(values.dtype), found[0].name))

    return edit


def replace_node(scope, kind, other):
    """Return an edit that makes the nodes ``kind`` of a module ``other`` ones."""

    def edit(proto):
        found = [n for n in proto.graph.node if n.op_type == kind and scope_of(n) == scope]
        assert found, scope
        for node in found:
            node.op_type = other
            del node.attribute[:]

    return edit


def scope_of(node):
    text = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "['']")
    return [name for name in json.loads(text.replace("'", '"'))[:-1] if name][-1:]


@pytest.mark.parametrize("stage", STAGE)
def test_without_a_fault_no_module_stands_out_and_most_are_compared(compare, origin, stage):
    figures = compare(stage)
    assert first_jump(figures, ROUNDING["float32"]) is None
    assert all(entry.error < 1e-4 and entry.not_finite == 0 for entry in figures)
    named = {entry.module for entry in figures} | {entry.folded for entry in figures}
    names = [name for name, _ in origin.modules()[stage].named_modules()]
    full = {n if n == stage or n.startswith(f"{stage}.") else f"{stage}.{n}".rstrip(".") for n in names}
    assert len(full & named) >= 0.7 * len(full)


@pytest.mark.parametrize(
    ("stage", "edit", "module"),
    [
        ("coarse", disturb("encoder.1.conv.conv.weight"), "coarse.encoder.1.conv.conv"),
        ("coarse", replace_node(["encoder.2.conv"], "Reciprocal", "Neg"), "coarse.encoder.2.conv"),
        ("coarse", disturb("decoder.1.conv.conv.weight"), "coarse.decoder.1.conv.conv"),
        ("coarse", disturb("to_rgb.bias"), "coarse.to_rgb"),
        ("coarse", disturb("layout.unet.encoder.1.conv.conv.weight"), "coarse.layout.unet.encoder.1.conv.conv"),
        ("coarse", disturb("layout.features.weight"), "coarse.layout.features"),
        ("coarse", replace_node(["decoder.3"], "LeakyRelu", "Relu"), "coarse.decoder.3"),
        ("parser", disturb("parser.context.features.3.conv.1.0.weight"), "parser.context.features.3.conv.1.0"),
        ("parser", disturb("parser.fusion.squeeze.bias"), "parser.fusion.squeeze"),
        ("parser", disturb("parser.classifier.weight"), "parser.classifier"),
        ("memory", disturb("encoder.conv3.bias"), "memory.encoder.conv3"),
        ("memory", disturb("encoder.conv1.weight"), "memory.encoder.conv1"),
        ("mrem", disturb("mining.value.weight"), "mrem.mining.value"),
        ("mrem", replace_node(["mining"], "Softmax", "LogSoftmax"), "mrem.mining"),
        ("refiner", disturb("body.bottom.0.gated.gate.bias"), "refiner.body.bottom.0.gated.gate"),
        ("refiner", disturb("detail.decode2.spade1.shared.weight"), "refiner.detail.decode2.spade1.shared"),
        ("refiner", disturb("body.decode4.spade2.gamma.bias"), "refiner.body.decode4.spade2.gamma"),
        ("refiner", replace_node(["detail.down2"], "Exp", "Abs"), "refiner.detail.down2"),
        ("refiner", disturb("body.spade4.beta.bias"), "refiner.body.spade4.beta"),
    ],
)
def test_a_planted_fault_is_attributed_to_its_module(compare, stage, edit, module):
    jump = first_jump(compare(stage, edit), ROUNDING["float32"])
    assert jump is not None
    assert jump.module == module
    assert jump.error > 1e-4


def test_a_fault_that_makes_nan_is_named_too(compare):
    jump = first_jump(compare("refiner", disturb("body.stem.gate.bias", np.nan)), ROUNDING["float32"])
    assert (jump.module, jump.error, jump.max_abs) == ("refiner.body.stem.gate", None, None)
    assert jump.not_finite > 0


def test_the_figures_of_a_module_are_those_of_numpy(compare, origin, tensors):
    entry = next(
        e for e in compare("refiner", disturb("detail.stem.gate.bias")) if e.module == "refiner.detail.stem.gate"
    )
    seen = []
    handle = origin.model.refiner.detail.stem.gate.register_forward_hook(lambda *a: seen.append(a[2].detach().numpy()))
    origin.stage(STAGE["refiner"], tensors)
    handle.remove()
    assert entry.reference_range == (pytest.approx(seen[0].min()), pytest.approx(seen[0].max()))
    assert entry.max_abs == pytest.approx(0.5, abs=1e-3)
    assert entry.error == pytest.approx(0.5 / np.abs(seen[0]).max(), rel=1e-2)
    magnitude = np.abs(seen[0])
    assert entry.outside_half == np.mean((magnitude > 65504) | ((magnitude > 0) & (magnitude < 2.0**-24)))


def test_what_is_not_finite_in_pytorch_too_is_no_fault():
    a = np.array([[np.nan, np.inf, 2.0]], np.float32)
    same, other = _figures("m", "", "t", a, a.copy()), _figures("m", "", "t", a, np.ones_like(a))
    assert (same.error, same.not_finite, same.reference_range) == (0.0, 0, (2.0, 2.0))
    assert (other.error, other.not_finite) == (None, 2)
    json.dumps([asdict(same), asdict(other)], allow_nan=False)
    nothing = _figures("m", "", "t", np.full((1, 2), np.nan), np.zeros((1, 2)))
    json.dumps(asdict(nothing), allow_nan=False)


def test_whatever_fails_while_attributing_the_verdict_stands(narrow_bundle, origin, chain_inputs):
    case = Case("face", {"image": chain_inputs[0][:1], "mask": chain_inputs[1][:1]})

    def run_of(stage):
        def run(proto, inputs, names):
            raise RuntimeError("the device fell off the bus")

        return run

    bundle, suspects, precision = open_bundle(narrow_bundle), {"mrem": [case]}, {"mrem": "float32"}
    (finding,) = attribute_stages(bundle, origin, suspects, precision, run_of)
    assert finding["sentence"] == "not attributed to a module: the device fell off the bus"
    (finding,) = attribute_stages(bundle, origin, suspects, precision)
    assert "does not show" in finding["sentence"]


def entry(error):
    return ModuleFigures("m", "", "t", error, error, (0, 1), (0, 1), 0.0, 0)


@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ((1e-6, 2e-6, 5e-6), None),
        ((1e-6, 5e-5, 2e-2), 1),
        ((1e-6, 2e-5, 1.9e-4, 2e-3), 1),
        ((2e-3, 1.0), 0),
        ((1e-6, None, 1.0), 1),
        ((), None),
    ],
)
def test_a_jump_is_far_above_rounding_and_all_before(errors, found):
    figures = [entry(error) for error in errors]
    assert first_jump(figures, 1e-5) is (None if found is None else figures[found])


def test_marking_leaves_the_graph_and_its_results_as_they_were(narrow_bundle):
    proto = onnx.load(narrow_bundle / "mrem.onnx")
    inner = next(node.output[0] for node in proto.graph.node if node.op_type == "Softmax")
    marked = marked_model(proto, [inner, "guidance"])
    assert [output.name for output in proto.graph.output] == ["guidance"]
    assert [output.name for output in marked.graph.output] == ["guidance", inner]


def test_the_finding_holds_what_a_report_shows(narrow_bundle, origin, chain_inputs, tmp_path):
    folder = tmp_path / "faulty"
    shutil.copytree(narrow_bundle, folder)
    proto = onnx.load(folder / "mrem.onnx")
    disturb("mining.query.bias", 3.0)(proto)
    disturb("mining.value.bias", 0.5)(proto)
    data = proto.SerializeToString()
    (folder / "mrem.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["mrem.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    labels = np.ones((3, *chain_inputs[0].shape[2:]), np.int32)
    inputs = {"image": chain_inputs[0], "mask": chain_inputs[1]}
    suspects = {"mrem": [Case("batch", inputs, {"semantic_map": labels})]}
    (finding,) = attribute_stages(open_bundle(folder), origin, suspects, {"mrem": "float32"})
    assert (finding["stage"], finding["module"]) == ("mrem", "mrem.mining.query")  # the first of the two
    assert "mrem.mining.query" in finding["sentence"]
    assert {"module", "error", "reference_range", "outside_half"} <= set(finding["modules"][0])
    json.dumps(finding, allow_nan=False)
    (nothing,) = attribute_stages(open_bundle(narrow_bundle), origin, suspects, {"mrem": "float32"})
    assert nothing["module"] is None
