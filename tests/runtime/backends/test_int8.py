"""The INT8 variant beside a bundle is taken where it was measured to be faster, and nowhere else."""

import re
import shutil
from dataclasses import asdict, replace

import pytest

from showface.runtime.backends import int8
from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.int8 import Verdict, cpu_name, faster_int8, verdicts
from showface.runtime.bundle import MANIFEST_FILE, open_bundle
from showface.runtime.inpainter import Inpainter

FLOAT = "float32 on onnxruntime"


@pytest.fixture
def pair(narrow_bundle, tmp_path):
    """Return a bundle and a function that puts its INT8 variant beside it, with these verdicts and changes."""
    folder = tmp_path / "model"
    shutil.copytree(narrow_bundle, folder)
    bundle = open_bundle(folder)

    def put(measured=(), **changes):
        variant = tmp_path / "model-int8"
        shutil.copytree(narrow_bundle, variant)
        precision = {**bundle.manifest.precision, "refiner": "int8"}
        record = {"target": "cpu", "measured": list(measured)}
        manifest = replace(bundle.manifest, precision=precision, calibration=record)
        (variant / MANIFEST_FILE).write_text(replace(manifest, **changes).to_json())
        return variant

    return bundle, put


def verdict(*ratios, device=None, backend="onnxruntime", against=FLOAT):
    pairs = {str(2**k): ratio for k, ratio in enumerate(ratios)}
    return asdict(Verdict(device or cpu_name(), backend, against, pairs))


def test_without_a_variant_nothing_is_said(pair):
    assert faster_int8(pair[0], "cpu") == (pair[0], "")


def test_the_variant_is_taken_where_it_was_faster_at_every_batch(pair):
    bundle, put = pair
    variant = open_bundle(put([verdict(0.5, device="another machine"), verdict(1.6, 1.4)]))
    taken, reason = faster_int8(bundle, "cpu")
    assert taken == variant
    assert reason == f"INT8 of model-int8, measured 1.40 × as fast as {FLOAT} on {cpu_name()}"
    assert faster_int8(variant, "cpu") == (variant, "")  # asked for by name


@pytest.mark.parametrize(
    ("measured", "changes", "said"),
    [
        ([verdict(1.6, 0.9)], {}, "model-int8 was measured 0.90 × as fast as float32 on onnxruntime"),
        (
            [],
            {},
            r"its speed on .* is not known; measure it with: showface benchmark \S*model-int8 --against \S*model$",
        ),
        ([verdict(2.0, device="another machine")], {}, "is not known"),
        ([verdict(2.0, against="float16 on onnxruntime")], {}, "is not known"),
        ([verdict(2.0, backend="tensorrt")], {}, "is not known"),
        ([{"device": 1}, 7, {"ratios": {}}, {**verdict(1), "ratios": {"1": "fast"}}], {}, "is not known"),
        ([verdict(2.0)], {"checkpoint_sha256": "0" * 64}, "is no INT8 variant of these weights"),
        ([verdict(2.0)], {"schema_version": 99}, "bundle schema 99 is newer"),
    ],
)
def test_else_the_bundle_runs_and_the_reason_is_said(pair, tmp_path, measured, changes, said):
    bundle, put = pair
    put(measured, **changes)
    taken, reason = faster_int8(bundle, "cpu")
    assert taken == bundle
    assert re.match(f"INT8 is not used: .*{said}", reason)


def test_a_gpu_is_asked_by_its_name_and_the_engines_that_fit_it(pair, monkeypatch):
    bundle, put = pair
    monkeypatch.setattr(int8, "cuda_device", lambda index: CudaDevice(index, f"GPU {index}", "sm_86"))
    name = {"device": "GPU 1", "against": FLOAT}
    variant = open_bundle(put([verdict(0.7, **name), verdict(1.8, backend="tensorrt-rtx", **name)]))
    assert faster_int8(bundle, "cuda:1")[0] == bundle  # ONNX Runtime's verdict, as long as there are no engines
    (variant.folder / "engines" / "tensorrt-rtx-sm_86").mkdir(parents=True)
    assert faster_int8(bundle, "cuda:1")[0] == variant
    assert "GPU 0 is not known" in faster_int8(bundle, "auto")[1]


def test_runs_take_it_and_evaluations_do_not(pair):
    bundle, put = pair
    variant = open_bundle(put([verdict(1.5)]))
    run = Inpainter.from_bundle(bundle.folder, "cpu", 1, faster=True)
    assert run.bundle_digest == variant.digest
    assert run.chain.description.endswith(f"; INT8 of model-int8, measured 1.50 × as fast as {FLOAT} on {cpu_name()}")
    assert Inpainter.from_bundle(bundle.folder, "cpu", 1).bundle_digest == bundle.digest
    by_name = Inpainter.from_bundle(bundle.folder, "cpu", 1, backend="onnxruntime", faster=True)
    assert by_name.bundle_digest == bundle.digest
    assert len(verdicts(variant.manifest)) == 1
