"""``showface build`` for real, without a GPU: what is written, what is kept, and how each failure is told."""

import hashlib
import json
import os
import subprocess
import sys

import onnx
import pytest
from onnx import helper

from showface.cli import main, printing
from showface.export.engines import process
from showface.export.engines.build import build_engines
from showface.export.engines.preflight import check_stages
from showface.export.engines.process import WORKER
from showface.export.engines.targets import choose_targets
from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.tensorrt.library import load_library
from showface.runtime.backends.tensorrt.sidecar import EngineFolder, check_sidecar, read_engine, read_sidecar
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.stages import STAGES

trt = load_library("tensorrt-rtx")
STAGE_NAMES = [stage.name for stage in STAGES]


def build(bundle, options, **changes):
    return build_engines(bundle, options, trt.__version__, "", **changes)


def planted(bundle, stage, operator="Bernoulli", after="Softmax"):
    """Return a graph of ``stage`` with an operator that no TensorRT parser takes, after the first ``after``."""
    model = onnx.load(bundle / f"{stage}.onnx")
    nodes = model.graph.node
    position, source = next((i, node) for i, node in enumerate(nodes) if node.op_type == after)
    node = helper.make_node(operator, [source.output[0]], ["planted"], "node_planted")
    node.metadata_props.extend(source.metadata_props)
    for reader in nodes:
        reader.input[:] = ["planted" if name == source.output[0] else name for name in reader.input]
    nodes.insert(position + 1, node)
    return model.SerializeToString()


def products(bundle, stage):
    """Return how many convolutions and matrix products a stage has."""
    return sum(node.op_type in ("Conv", "MatMul") for node in onnx.load(bundle / f"{stage}.onnx").graph.node)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_engines_and_sidecars_are_written(first_build):
    path, rows, phases = first_build
    assert [(row.stage, row.status) for row in rows] == [(name, "built") for name in STAGE_NAMES]
    folder = EngineFolder(open_bundle(path), "tensorrt-rtx", "sm_86")
    files = files_of(folder)
    assert set(files) == {f"{name}.{suffix}" for name in STAGE_NAMES for suffix in ("engine", "json")}
    for name, row in zip(STAGE_NAMES, rows, strict=True):
        sidecar = read_sidecar(folder, name)
        check_sidecar(folder, sidecar, name, trt.__version__, "sm_86")
        assert read_engine(folder, sidecar) == files[f"{name}.engine"]
        assert sidecar.engine_bytes == row.engine_bytes == len(files[f"{name}.engine"])
        assert (sidecar.batches, sidecar.tf32, set(sidecar.products)) == ((1, 1, 4), False, {"float32"})
        assert any(stage == name and done == steps > 0 for stage, _, done, steps in phases)


def test_a_second_build_does_nothing_but_what_is_missing_or_of_other_options(built_copy, options, monkeypatch):
    folder = EngineFolder(built_copy, "tensorrt-rtx", "sm_86")
    files = files_of(folder)
    again = build(built_copy, options())
    assert {row.status for row in again} == {"current"}
    assert files_of(folder) == files

    folder.engine("mrem").write_bytes(b"junk")
    folder.sidecar("parser").unlink()
    rows = build(built_copy, options())
    assert {row.stage for row in rows if row.status == "built"} == {"mrem", "parser"}
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-c", "raise SystemExit(3)"))
    tried = build(built_copy, options(batches=(1, 2, 4)))
    assert {row.status for row in tried} == {"failed"}  # none of other batches is taken for current


def test_an_unsupported_operator_is_named_with_its_module(bundle_copy, narrow_bundle, options):
    bundle = bundle_copy(
        mrem=planted(narrow_bundle, "mrem"), refiner=planted(narrow_bundle, "refiner", "Unique", "Exp")
    )
    checks = {row.stage: row for row in check_stages(bundle, options())}
    assert {name for name, row in checks.items() if not row.supported} == {"mrem", "refiner"}
    assert checks["coarse"].dtypes == f"{products(narrow_bundle, 'coarse')} × float32"
    assert checks["refiner"].dtypes.endswith(" × float32")
    assert checks["mrem"].offending[0].startswith("node_planted (Bernoulli, mrem.mining): ")
    assert checks["refiner"].offending[0].startswith("node_planted (Unique, refiner.body.stem): ")
    assert "export again" in checks["mrem"].remedy
    assert not (bundle.folder / "engines").exists()

    rows = {row.stage: row for row in build(bundle, options())}
    assert rows["mrem"].error.startswith(
        "stage mrem: node 'node_planted' (Bernoulli) of torch module mrem.mining: unsupported"
    )
    assert {name for name, row in rows.items() if row.status == "built"} == {"coarse", "parser", "memory"}
    folder = EngineFolder(bundle, "tensorrt-rtx", "sm_86")
    assert set(files_of(folder)) == {f"{n}.{s}" for n in ("coarse", "parser", "memory") for s in ("engine", "json")}


def test_float16_that_was_promised_and_is_not_there_is_an_error(bundle_copy, narrow_bundle, options):
    data = (narrow_bundle / "refiner.onnx").read_bytes()
    bundle = bundle_copy(precision="float16", refiner=data)
    row = next(row for row in check_stages(bundle, options()) if row.stage == "refiner")
    assert not row.supported
    assert len(row.offending) == products(narrow_bundle, "refiner") > 20
    assert "the manifest says float16, but it computes in float32" in row.offending[0]
    assert row.remedy == "export the bundle again in float16"


def test_a_graph_that_is_none_is_refused(bundle_copy, narrow_bundle, options):
    broken = (narrow_bundle / "mrem.onnx").read_bytes()[:900]
    rows = {row.stage: row for row in check_stages(bundle_copy(mrem=broken), options())}
    assert "Failed to parse the ONNX model" in rows["mrem"].offending[0]


CRASH = (sys.executable, "-c", "import os, signal, sys; sys.stderr.write('last words'); os.kill(os.getpid(), {})")


@pytest.mark.parametrize(
    ("signal", "named"),
    [("signal.SIGSEGV", "ended by SIGSEGV (a crash"), ("signal.SIGKILL", "ended by SIGKILL (probably out of memory)")],
)
def test_a_crash_of_the_builder_is_an_error_of_its_stage(bundle_copy, options, monkeypatch, signal, named):
    bundle = bundle_copy()
    monkeypatch.setattr(process, "WORKER", (*CRASH[:2], CRASH[2].format(signal)))
    rows = build(bundle, options())
    assert [row.status for row in rows] == ["failed"] * 5
    assert rows[0].error.startswith("stage coarse: the builder was")
    assert named in rows[0].error
    assert rows[0].error.endswith("its last words: last words")
    assert list((bundle.folder / "engines" / "tensorrt-rtx-sm_86").iterdir()) == []


def test_a_builder_that_takes_too_much_memory_is_ended(bundle_copy, options):
    rows = build(bundle_copy(), options(host_memory_mib=64))
    assert {row.status for row in rows} == {"failed"}
    said = "stage memory: the builder ran out of memory: it took more than the 64 MiB that it may; raise this limit"
    assert (rows[2].error, rows[2].argument) == (said, "host_memory")


def test_a_failure_leaves_the_engines_of_before(bundle_copy, options, monkeypatch):
    bundle = bundle_copy()
    folder = EngineFolder(bundle, "tensorrt-rtx", "sm_86")
    folder.path.mkdir(parents=True)
    for name in STAGE_NAMES:
        folder.engine(name).write_bytes(b"mine")
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-c", "raise SystemExit(3)"))
    build(bundle, options())
    assert files_of(folder) == {f"{name}.engine": b"mine" for name in STAGE_NAMES}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batches": (0, 1, 2)}, "max_batch: batches 0, 1, 2: need 1 ≤ least ≤ best ≤ greatest"),
        ({"batches": (1, 4, 2)}, "max_batch: batches 1, 4, 2: need 1 ≤ least ≤ best ≤ greatest"),
        ({"profiles": 3}, "profiles: 3 profiles: use 1, or 2 with a least batch of 1 and a greatest of 2 or more"),
        ({"profiles": 2, "batches": (2, 2, 4)}, "profiles: 2 profiles: use 1, or 2 with"),
        ({"optimization_level": 6}, "optimization_level: optimization level 6: use 0 to 5"),
        ({"version_compatible": True}, "version_compatible: only tensorrt builds such engines"),
        ({"target": "ampere_plus"}, "hardware_compatible: only tensorrt builds such engines"),
    ],
)
def test_options_that_no_engine_can_have_are_refused(options, changes, named):
    with pytest.raises(UsageError) as refused:
        options(**changes).check()
    assert str(refused.value).startswith(named)


def test_targets():
    gpu = CudaDevice(0, "Orin", "sm_87")
    assert choose_targets(trt, "tensorrt-rtx", ["sm_89", "sm_86", "sm_89"], False, None) == ("sm_89", "sm_86")
    assert choose_targets(trt, "tensorrt-rtx", [], False, CudaDevice(0, "RTX", "sm_120")) == ("sm_120",)
    assert choose_targets(trt, "tensorrt", [], False, gpu) == ("sm_87",)
    assert choose_targets(trt, "tensorrt", ["sm_87"], True, gpu) == ("ampere_plus",)
    for arguments, named in [
        (("tensorrt-rtx", [], False, None), "no GPU here to build for; name a target: sm_75, "),
        (("tensorrt-rtx", ["sm_86"], True, None), "hardware_compatible: only tensorrt builds such engines"),
        (("tensorrt-rtx", [], False, gpu), "sm_87: TensorRT-RTX .* builds for sm_75, sm_80, sm_86"),
        (("tensorrt-rtx", ["sm_86", "86"], False, None), "86: TensorRT-RTX"),
        (("tensorrt", [], False, None), "builds on the GPU that it builds for, and no CUDA driver is found here"),
        (("tensorrt", ["sm_86"], False, gpu), r"builds for the GPU of this machine \(Orin, sm_87\)"),
    ]:
        with pytest.raises(UsageError, match=named):
            choose_targets(trt, *arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--backend", "tensorrt-rtx"], 2, "no GPU here to build for"),
        (["--backend", "tensorrt-rtx", "--target", "sm_90"], 2, "--target: sm_90: TensorRT-RTX"),
        (["--backend", "openvino"], 2, "--backend: openvino builds no engines; use tensorrt or tensorrt-rtx"),
        (["--backend", "tensorrt-rtx", "--target", "sm_86", "--max-batch", "0"], 2, "--max-batch: batches 1, 0, 0:"),
        (["--backend", "tensorrt-rtx", "--target", "sm_75", "--check"], 1, "node_matmul"),
    ],
)
def test_the_command_line(bundle_copy, capsys, monkeypatch, arguments, code, said):
    monkeypatch.setattr(printing.tables, "width", 200)
    monkeypatch.setattr("showface.runtime.backends.cuda_devices.cuda_device", lambda index: None)
    bundle = bundle_copy()
    with pytest.raises(SystemExit) as ended:
        main(["build", str(bundle.folder), *arguments])
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert not (bundle.folder / "engines").exists()


def test_the_graph_of_a_bundle_is_checked_before_it_is_parsed(bundle_copy, options):
    bundle = bundle_copy()
    path = bundle.folder / "coarse.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"coarse\.onnx: its hash differs"):
        build(bundle, options())


def test_a_changed_graph_makes_its_engine_stale(built_copy, options):
    bundle = built_copy
    path = bundle.folder / "mrem.onnx"
    model = onnx.load(path)
    model.doc_string = "changed"
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    manifest["sha256"]["mrem.onnx"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle.folder / "manifest.json").write_text(json.dumps(manifest))
    changed = open_bundle(bundle.folder)
    folder = EngineFolder(changed, "tensorrt-rtx", "sm_86")
    with pytest.raises(UsageError, match=r"mrem\.onnx of manifest\.json has changed since the build; rebuild with"):
        check_sidecar(folder, read_sidecar(folder, "mrem"), "mrem", trt.__version__, "sm_86")
    assert {row.stage for row in build(changed, options()) if row.status == "built"} == {"mrem"}


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_a_device_builds_without_torch_and_onnx(built_copy, bundle_copy, narrow_bundle, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(bundle, target):
        command = [sys.executable, "-m", "showface.cli", "build", str(bundle.folder), "--backend", "tensorrt-rtx"]
        command += ["--target", target, "--opt-batch", "1", "--max-batch", "4"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    EngineFolder(built_copy, "tensorrt-rtx", "sm_86").engine("memory").unlink()
    done = run(built_copy, "sm_86")
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(word) for word in ("built", "current")] == [1, len(STAGE_NAMES) - 1]
    others = {name: (narrow_bundle / f"{name}.onnx").read_bytes()[:900] for name in ("coarse", "parser", "refiner")}
    refused = run(bundle_copy("broken", **others), "sm_75")
    assert refused.returncode == 1
    assert "of torch module unknown: pip install onnx to see it" in refused.stderr
    blocked = [sys.executable, "-c", "import torch"]
    assert subprocess.run(blocked, env=environment, capture_output=True, check=False).returncode == 1


def test_the_builder_runs_nothing_of_the_working_directory(tmp_path):
    """A kit that someone else packed is unpacked there."""
    (tmp_path / "hashlib.py").write_text("open('ran', 'w')\n")
    subprocess.run(WORKER, cwd=tmp_path, input=b"{}", capture_output=True, timeout=300, check=False)
    assert not (tmp_path / "ran").exists()
