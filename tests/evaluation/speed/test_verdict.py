"""A benchmark of an INT8 bundle against a float one leaves its verdict in the INT8 bundle's manifest."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from showface.evaluation.speed.benchmark import Candidate, run_benchmark
from showface.evaluation.speed.measure import Schedule
from showface.evaluation.speed.verdict import keep_verdict
from showface.runtime.backends.int8 import cpu_name, faster_int8, verdicts
from showface.runtime.bundle import MANIFEST_FILE, open_bundle

CPU = SimpleNamespace(device="cpu", backend="onnxruntime")


@pytest.fixture
def pair(narrow_bundle, tmp_path):
    """Return a float bundle and one that says of itself that it is INT8."""
    for name in ("model", "model-int8"):
        shutil.copytree(narrow_bundle, tmp_path / name)
    bundle = open_bundle(tmp_path / "model")
    manifest = replace(bundle.manifest, precision={**bundle.manifest.precision, "coarse": "int8"}, calibration={"a": 1})
    (tmp_path / "model-int8" / MANIFEST_FILE).write_text(manifest.to_json())
    return bundle, open_bundle(tmp_path / "model-int8")


def subject(name, bundle, chain=CPU):
    return SimpleNamespace(name=name, bundle=bundle, chain=chain)


def rows(*ratios):
    return [{"batch": 2**k, "ratios": {"against": {"median": ratio}}} for k, ratio in enumerate(ratios)]


def test_a_benchmark_writes_what_a_run_reads(pair):
    bundle, variant = pair
    result = run_benchmark(
        Candidate(variant.folder, device="cpu"), Candidate(bundle.folder, device="cpu"), None, Schedule((1,), 1, 0), 1,
        fresh=False,
    )  # fmt: skip
    written = open_bundle(variant.folder)
    (kept,) = verdicts(written.manifest)
    assert kept.ratios == {"1": pytest.approx(result["batches"][0]["ratios"]["against"]["median"], abs=1e-3)}
    assert (kept.device, kept.backend, kept.against) == (cpu_name(), "onnxruntime", "float32 on onnxruntime")
    assert result["int8"].startswith(f"INT8 is {kept.least:.2f} × as fast as float32 on onnxruntime on {cpu_name()}; ")
    assert written.manifest.calibration["a"] == 1
    assert replace(written.manifest, calibration=None) == replace(variant.manifest, calibration=None)
    taken, _ = faster_int8(bundle, "cpu")
    assert (taken.folder == variant.folder) is (kept.least > 1)


def test_either_may_come_first_and_a_new_verdict_replaces_the_old(pair):
    bundle, variant = pair
    text = keep_verdict([(subject("bundle", variant), "cpu"), (subject("against", bundle), "cpu")], rows(0.8, 0.9))
    assert "does not take it" in text
    variant = open_bundle(variant.folder)
    text = keep_verdict([(subject("bundle", bundle), "cpu"), (subject("against", variant), "cpu")], rows(0.5, 0.8))
    assert f"an inpainter of {bundle.folder} takes it" in text
    (kept,) = verdicts(open_bundle(variant.folder).manifest)
    assert kept.ratios == {"1": 2.0, "2": 1.25}


def test_what_is_no_such_pair_leaves_no_verdict(pair):
    bundle, variant = pair
    other = replace(bundle, manifest=replace(bundle.manifest, checkpoint_sha256="0" * 64))
    before = (variant.folder / MANIFEST_FILE).read_bytes()
    for first, second in ((bundle, bundle), (variant, variant), (variant, other)):
        pairs = [(subject("bundle", first), "cpu"), (subject("against", second), "cpu")]
        assert keep_verdict(pairs, rows(2.0)) is None
    assert (variant.folder / MANIFEST_FILE).read_bytes() == before


def test_two_devices_say_nothing_of_either(pair, monkeypatch):
    bundle, variant = pair
    monkeypatch.setattr("showface.evaluation.speed.verdict.device_name", lambda device: f"GPU {device}")
    gpu = SimpleNamespace(device="cuda", backend="tensorrt-rtx")
    pairs = [(subject("bundle", variant, gpu), "cuda:0"), (subject("against", bundle), "cpu")]
    assert keep_verdict(pairs, rows(9.0)) is None


def test_a_bundle_that_cannot_be_written_is_said(pair, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied")

    bundle, variant = pair
    monkeypatch.setattr("showface.evaluation.speed.verdict.write_file", refuse)
    text = keep_verdict([(subject("bundle", variant), "cpu"), (subject("against", bundle), "cpu")], rows(1.5))
    assert "cannot be written, so that no run will know: Permission denied" in text
