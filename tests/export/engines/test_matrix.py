"""Every stage parses and builds for real, in both precisions, for every target, from the bundle and its ablations."""

import hashlib

import onnx
import pytest

from showface.export.engines.request import BuildOptions, EngineRequest
from showface.export.float16 import assert_float16, convert_to_float16
from showface.runtime.bundle import default_bundle
from showface.runtime.stages import STAGES, TENSORS, VARIANTS
from showface.training.networks.islands import ISLANDS

# float16 runs on all; float32 on all from Ampere on, of which the newest stands for the others.
TARGETS = {"float32": ("sm_75", "sm_86", "sm_120"), "float16": ("sm_75", "sm_86", "sm_89", "sm_120")}
# TensorRT-RTX 1.7: "Cannot compile operation … for Turing (SM75): FP32 GEMM is not supported".
WITH_MATRIX_PRODUCTS = {"memory", "mrem"}


def requests_of(folder, stage, protos):
    """Return the requests of a stage for all targets of each precision, by (precision, target)."""
    found = {}
    for precision, proto in protos.items():
        data = proto.SerializeToString()
        path = folder / f"{stage}.{precision}.onnx"
        path.write_bytes(data)
        for target in TARGETS[precision]:
            engine = folder / f"{stage}.{precision}.{target}.engine"
            options = BuildOptions("tensorrt-rtx", target, (1, 2, 4))
            digest = hashlib.sha256(data).hexdigest()
            found[precision, target] = EngineRequest(stage, str(path), digest, str(engine), precision, False, options)
    return found


def check(stage, precision, target, request, event, refused):
    """Assert that an engine was built with the stage table's tensors and the precision that was asked for."""
    where = (stage.name, precision, target)
    if refused:
        reasons = {refusal["reason"] for refusal in event["refused"]}
        assert reasons == {"TensorRT-RTX compiles no float32 matrix product for sm_75 (Turing)"}, where
        return
    facts = event["result"]
    assert facts["dtypes"] == {name: TENSORS[name].dtype for name in (*stage.inputs, *stage.outputs)}, where
    assert set(facts["products"]) == {precision}, where
    with open(request.engine, "rb") as file:
        assert len(file.read()) > 10_000, where


@pytest.mark.parametrize("precision", TARGETS)
def test_the_default_bundle(serve_all, tmp_path, precision):
    requests = {}
    for stage in STAGES:
        proto = onnx.load(default_bundle() / f"{stage.name}.onnx")
        if precision == "float16":
            proto = convert_to_float16(proto, ISLANDS[stage.name], stage.name)
            assert_float16(proto, stage.name)
        requests |= {(stage, *key): r for key, r in requests_of(tmp_path, stage.name, {precision: proto}).items()}
    events = serve_all(requests.values())
    assert len(events) == len(STAGES) * len(TARGETS[precision])
    for (stage, _, target), request, event in zip(requests, requests.values(), events, strict=True):
        refused = (precision, target) == ("float32", "sm_75") and stage.name in WITH_MATRIX_PRODUCTS
        check(stage, precision, target, request, event, refused)


def test_the_stage_that_an_ablation_changes(serve_all, ablation, tmp_path):
    variant, name, folder, _ = ablation
    stage = next(stage for stage in VARIANTS[variant] if stage.name == name)
    proto = onnx.load(folder / f"{name}.onnx")
    half = convert_to_float16(proto, ISLANDS[name], name)
    assert_float16(half, name)
    requests = requests_of(tmp_path, name, {"float32": proto, "float16": half})
    has_products = variant != "no-memory"  # the style encoder alone has none
    events = serve_all(requests.values())
    for (precision, target), request, event in zip(requests, requests.values(), events, strict=True):
        refused = (precision, target) == ("float32", "sm_75") and has_products
        check(stage, precision, target, request, event, refused)
