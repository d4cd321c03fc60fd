"""What can be wrong with a GPU and its engines, at the command line: one sentence, the exit code, no file lost."""

import json
import shutil

import pytest

from showface.cli import main
from showface.runtime.backends.tensorrt import cuda, loader, sidecar
from showface.runtime.backends.tensorrt.slot import Slot

OTHER = "linux-x86_64" if sidecar.platform_here() != "linux-x86_64" else "linux-aarch64"


@pytest.fixture
def run(face_folder, monkeypatch, tmp_path, capsys):
    """Return a function that completes a folder with the engines of a rig: exit code, what was said, statuses."""
    images, masks = face_folder

    def start(rig, *more, device=True, runtime=None):
        monkeypatch.setattr(loader, "cuda_device", lambda index: rig.device if device else None)
        monkeypatch.setattr(loader, "load_library", lambda backend: rig.trt)
        monkeypatch.setattr(loader, "CudaRuntime", runtime or (lambda index: rig.cuda))
        command = ["inpaint", images, tmp_path / "out", "--masks", masks, "--bundle", rig.bundle.folder]
        with pytest.raises(SystemExit) as ended:
            main([*map(str, command), "--backend", rig.backend, *more])
        log = tmp_path / "out" / "results.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        assert rig.cuda.leaks() == [] or ended.value.code == 0
        said = " ".join(capsys.readouterr().err.split())
        return ended.value.code, said, [json.loads(line)["status"] for line in lines]

    return start


def test_no_driver(quick_rig, run):
    code, said, statuses = run(quick_rig, device=False)
    assert (code, statuses) == (2, [])
    assert "--backend: tensorrt-rtx: no CUDA device 0, or no driver, is found here; use --backend onnxruntime" in said


def test_an_old_driver(quick_rig, run, monkeypatch):
    runtime = pytest.importorskip("cuda.bindings.runtime")
    status = runtime.cudaError_t.cudaErrorInsufficientDriver
    monkeypatch.setattr(runtime, "cudaSetDevice", lambda index: (status,))
    monkeypatch.setattr(cuda, "driver_version", lambda: (12, 4))
    code, said, statuses = run(quick_rig, runtime=cuda.CudaRuntime)
    assert (code, statuses) == (2, [])
    assert "(35); cuda-bindings" in said
    assert "the driver runs CUDA up to 12.4; install bindings that suit it with: pip install 'cuda-bindings==12" in said


def test_another_gpu(quick_rig, run):
    shutil.move(quick_rig.folder.path, quick_rig.folder.path.with_name("tensorrt-rtx-sm_120"))
    code, said, statuses = run(quick_rig)
    assert (code, statuses) == (2, [])
    assert "no engines of tensorrt-rtx for Fake GPU (sm_86), only for: sm_120; build with: showface build" in said


def test_an_engine_of_another_system(quick_enterprise_rig, run):
    quick_enterprise_rig.edit_sidecar("coarse", platform=OTHER)
    code, said, statuses = run(quick_enterprise_rig)
    assert (code, statuses) == (2, [])
    assert f"coarse.engine: built on {OTHER}, this machine is {sidecar.platform_here()}; rebuild with" in said


def test_no_memory_while_loading(quick_rig, run):
    quick_rig.cuda.budget = 2**20
    code, said, statuses = run(quick_rig)
    assert (code, statuses) == (2, [])
    assert "not enough memory" in said


def test_no_memory_while_warming_up(quick_rig, run):
    quick_rig.engines["mrem"].fails = "Error Code 2: OutOfMemory"
    code, said, statuses = run(quick_rig)
    assert (code, statuses) == (1, [])
    assert "stage mrem: TensorRT could not run the engine: Error Code 2: OutOfMemory" in said


def test_no_memory_in_the_middle(quick_rig, run, monkeypatch):
    engine, start, tried = quick_rig.engines["memory"], Slot.start, []

    def give(self, chunk, *rest):
        tried.append(chunk.count)
        engine.fails = "Error Code 2: OutOfMemory" if chunk.count > 1 else ""
        start(self, chunk, *rest)

    monkeypatch.setattr(Slot, "start", give)
    code, _, statuses = run(quick_rig, "--batch-size", "2")
    assert (code, statuses) == (0, ["done"] * 3)
    assert tried[0] == 2
    assert tried[-1] == 1


def test_a_broken_cache_of_kernels(quick_rig, run, cache_home, tmp_path):
    assert run(quick_rig)[0] == 0
    (file,) = cache_home.rglob("*.cache")
    file.write_bytes(file.read_bytes()[:20])
    shutil.rmtree(tmp_path / "out")
    code, _, statuses = run(quick_rig)
    assert (code, statuses) == (0, ["done"] * 3)
    assert len(file.read_bytes()) > 20


def test_a_refused_capture(quick_enterprise_rig, run):
    quick_enterprise_rig.cuda.capture_error = "operation not permitted when stream is capturing (900)"
    code, said, statuses = run(quick_enterprise_rig, "--cuda-graph")
    assert (code, set(statuses)) == (0, {"done"})
    assert "CUDA graphs are not used: CUDA device 0: cudaStreamEndCapture: operation not permitted" in said
