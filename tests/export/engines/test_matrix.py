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
REFUSED = ("sm_75",)


def jobs_of(folder, stage, precision, proto, has_products):
    """Return what is to be built of a stage in one precision: requests, other targets of their engines, refused or not.

    All targets share an engine, but for the one that is refused: it would end the build of all.
    """
    data = proto.SerializeToString()
    path = folder / f"{stage.name}.{precision}.onnx"
    path.write_bytes(data)
    refused = REFUSED if precision == "float32" and has_products else ()
    groups = [
        tuple(target for target in TARGETS[precision] if target not in refused),
        *([target] for target in refused),
    ]
    jobs = []
    for target, *others in groups:
        engine = folder / f"{stage.name}.{precision}.{target}.engine"
        digest, options = hashlib.sha256(data).hexdigest(), BuildOptions("tensorrt-rtx", target, (1, 2, 4))
        request = EngineRequest(stage.name, str(path), digest, str(engine), precision, False, options)
        jobs.append((stage, request, others, target in refused))
    return jobs


def check(serve_all, jobs):
    """Assert that engines are built with the stage table's tensors and the precision that was asked for, or refused."""
    _, requests, others, _ = zip(*jobs, strict=True)
    for (stage, request, _, refused), event in zip(jobs, serve_all(requests, others), strict=True):
        where = (stage.name, request.precision, request.options.target)
        if refused:
            reasons = {refusal["reason"] for refusal in event["refused"]}
            assert reasons == {"TensorRT-RTX compiles no float32 matrix product for sm_75 (Turing)"}, where
            continue
        assert "result" in event, (where, event)
        facts = event["result"]
        assert facts["dtypes"] == {name: TENSORS[name].dtype for name in (*stage.inputs, *stage.outputs)}, where
        assert set(facts["products"]) == {request.precision}, where
        with open(request.engine, "rb") as file:
            assert len(file.read()) > 10_000, where


@pytest.mark.parametrize("precision", TARGETS)
def test_the_default_bundle(serve_all, tmp_path, precision):
    jobs = []
    for stage in STAGES:
        proto = onnx.load(default_bundle() / f"{stage.name}.onnx")
        if precision == "float16":
            proto = convert_to_float16(proto, ISLANDS[stage.name], stage.name)
            assert_float16(proto, stage.name)
        jobs += jobs_of(tmp_path, stage, precision, proto, stage.name in WITH_MATRIX_PRODUCTS)
    assert sum(1 + len(others) for _, _, others, _ in jobs) == len(STAGES) * len(TARGETS[precision])
    check(serve_all, jobs)


def test_the_stage_that_an_ablation_changes(serve_all, ablation, tmp_path):
    variant, name, folder, _ = ablation
    stage = next(stage for stage in VARIANTS[variant] if stage.name == name)
    proto = onnx.load(folder / f"{name}.onnx")
    half = convert_to_float16(proto, ISLANDS[name], name)
    assert_float16(half, name)
    has_products = variant != "no-memory"  # the style encoder alone has none
    check(
        serve_all,
        [
            *jobs_of(tmp_path, stage, "float32", proto, has_products),
            *jobs_of(tmp_path, stage, "float16", half, has_products),
        ],
    )
