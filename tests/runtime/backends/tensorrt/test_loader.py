"""Engines are refused before a byte is deserialised, each fault in a sentence with the command that mends it."""

import os
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from showface.runtime import backends
from showface.runtime.backends import cuda_devices as devices
from showface.runtime.backends import onnxruntime as onnxruntime_backend
from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.tensorrt import library, loader, sidecar
from showface.runtime.backends.tensorrt.loader import check_engines, matching_folder
from showface.runtime.backends.tensorrt.sidecar import check_sidecar, fits_model, platform_here, read_sidecar
from showface.runtime.errors import UsageError

MEND = r"rebuild with: showface build .* --backend tensorrt-rtx --target sm_86"


@pytest.fixture
def rig(make_rig):
    return make_rig(compute=lambda inputs: {})


def open_rig(rig):
    check_engines(rig.folder, rig.version, rig.device)
    return rig.open()


def cut(rig):
    path = rig.folder.engine("parser")
    path.write_bytes(path.read_bytes()[:-3])


def tamper(rig):
    path = rig.folder.engine("mrem")
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))


def lose(rig):
    rig.folder.engine("refiner").unlink()


def lose_sidecar(rig):
    rig.folder.sidecar("memory").unlink()


def edit(of, /, **changes):
    return lambda rig: rig.edit_sidecar(of, **changes)


def junk(text):
    return lambda rig: rig.folder.sidecar("coarse").write_text(text)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (cut, r"parser\.engine: its hash differs from its sidecar's"),
        (tamper, r"mrem\.engine: its hash differs"),
        (lose, r"refiner\.engine: cannot be read"),
        (lose_sidecar, r"memory\.json: no sidecar here"),
        (edit("coarse", tensorrt_version="1.6.0.1"), r"built by tensorrt-rtx 1\.6\.0\.1, here is 1\.7\.1\.116"),
        (edit("coarse", onnx_sha256="0" * 64), r"coarse\.onnx of manifest\.json has changed since the build"),
        (edit("coarse", precision="float16"), "computes in float16, the manifest says otherwise"),
        (edit("coarse", stage="parser"), "its sidecar speaks of parser tensorrt-rtx sm_86"),
        (edit("coarse", target="sm_120"), "its sidecar speaks of coarse tensorrt-rtx sm_120"),
        (edit("coarse", backend="tensorrt"), "its sidecar speaks of coarse tensorrt sm_86"),
        (edit("coarse", schema_version=9), "'schema_version' is 9"),
        (edit("coarse", batches=[4, 2, 1]), r"'batches' is \[4, 2, 1\]"),
        (edit("coarse", schema_version=1), "'schema_version' is 1, not 3"),  # before engines took all memory from us
        (edit("coarse", batches=[1, 2]), r"'batches' is \[1, 2\]"),
        (edit("coarse", tf32="no"), "'tf32' is 'no'"),
        (edit("coarse", extra=1), "'extra' is unknown"),
        (edit("coarse", batches=[1, 2, 8]), r"its profile of image is .*, its sidecar says \(1, 2, 8\)"),
        (junk("{"), "not an engine's sidecar"),
        (junk("[]"), "it is no JSON object"),
        (junk('{"schema_version": 3}'), "'stage' is missing"),
    ],
)
def test_a_fault_is_named_with_the_command_that_mends_it(rig, fault, named):
    fault(rig)
    files = {p: p.read_bytes() for p in rig.bundle.folder.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=f"{named}.*{MEND}"):
        open_rig(rig)
    assert rig.deserialised == [] or "profile" in named
    assert rig.cuda.leaks() == []
    assert {p: p.read_bytes() for p in rig.bundle.folder.rglob("*") if p.is_file()} == files


def test_an_engine_for_another_gpu_is_refused(rig):
    other = CudaDevice(0, "Other GPU", "sm_89")
    with pytest.raises(UsageError, match=r"built for sm_86, this GPU is sm_89; rebuild with: .* --target sm_89"):
        check_engines(rig.folder, rig.version, other)
    assert matching_folder(rig.bundle, "tensorrt-rtx", other) is None
    assert matching_folder(rig.bundle, "tensorrt-rtx", rig.device) == rig.folder
    assert matching_folder(rig.bundle, "tensorrt", rig.device) is None


def test_an_engine_tuned_for_another_model_is_refused_with_both_commands(quick_enterprise_rig):
    other = replace(quick_enterprise_rig.device, name="Other GPU")
    build = "with: showface build .*"
    said = f"this GPU is Other GPU; rebuild {build} --target sm_86; or .* {build} --hardware-compatible$"
    with pytest.raises(UsageError, match=said):
        check_engines(quick_enterprise_rig.folder, quick_enterprise_rig.version, other)


def test_an_engine_of_another_system_is_refused_where_engines_are_not_portable(rig, monkeypatch):
    rig.edit_sidecar("coarse", platform="win32-x86_64")
    check_engines(rig.folder, rig.version, rig.device)  # TensorRT-RTX's run everywhere
    coarse = replace(read_sidecar(rig.folder, "coarse"), backend="tensorrt", gpu="Fake GPU")
    folder = replace(rig.folder, backend="tensorrt")
    said = rf"coarse\.engine: built on win32-x86_64, this machine is {platform_here()}; rebuild"
    with pytest.raises(UsageError, match=said):
        check_sidecar(folder, coarse, "coarse", rig.version, "sm_86")
    monkeypatch.setattr(sidecar.sys, "platform", "win32")
    monkeypatch.setattr(sidecar.platform, "machine", lambda: "AMD64")
    check_sidecar(folder, coarse, "coarse", rig.version, "sm_86")


def test_a_sidecar_or_engine_that_floods_or_blocks_is_not_waited_for(rig):
    for path in (rig.folder.sidecar("mrem"), rig.folder.engine("mrem")):
        data = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(UsageError, match=r"mrem\.(json|engine): .*is no regular file"):
            rig.open()
        path.unlink()
        path.write_bytes(data)
    rig.folder.engine("mrem").write_bytes(bytes(10**6))
    with pytest.raises(UsageError, match=r"mrem\.engine: its hash differs"):
        rig.open()


def test_an_engine_that_the_library_refuses(rig):
    del rig.engines["mrem"]
    said = rf"mrem\.engine: tensorrt-rtx 1\.7\.1\.116 refuses it on this GPU \(old cuda driver\); {MEND}"
    with pytest.raises(UsageError, match=said):
        open_rig(rig)
    assert rig.cuda.leaks() == []


def test_engines_are_deserialised_side_by_side(rig):
    every, find = threading.Barrier(len(rig.engines)), rig.find_engine

    def meet(data):
        every.wait(60)  # breaks, and fails the test, unless all of them are here at once
        return find(data)

    rig.find_engine = meet
    rig.open().close()
    assert len(rig.deserialised) == len(rig.engines)


def test_an_engine_of_other_tensors(rig):
    rig.engines["mrem"].names = ("guidance", "mask")
    with pytest.raises(UsageError, match=rf"mrem\.engine: has the tensors \['guidance', 'mask'\].*{MEND}"):
        open_rig(rig)


def test_compatible_engines(rig):
    for stage in rig.engines:
        rig.edit_sidecar(stage, version_compatible=True, tensorrt_version="1.6.2")
    check_engines(rig.folder, "1.7.1.116", rig.device)
    for version in ("1.5.0", "2.0.0"):
        with pytest.raises(UsageError, match="built by tensorrt-rtx"):
            check_engines(rig.folder, version, rig.device)


@pytest.fixture
def machine(monkeypatch, rig):
    """A machine with the rig's GPU, TensorRT-RTX and CUDA; ``gpu`` and ``cuda`` can be taken away."""
    state = SimpleNamespace(gpu=rig.device, trt=rig.trt, asked=[])
    find = lambda index: state.gpu if index == 0 else None  # noqa: E731
    monkeypatch.setattr(devices, "cuda_device", find)
    monkeypatch.setattr(loader, "cuda_device", find)
    monkeypatch.setattr("showface.runtime.backends.tensorrt.loader.CudaRuntime", lambda index: rig.cuda)

    def load(backend):
        if backend == "tensorrt":
            raise UsageError("--backend tensorrt needs tensorrt")
        return state.trt

    monkeypatch.setattr(loader, "load_library", load)
    monkeypatch.setattr(onnxruntime_backend, "cuda_device_count", lambda: 0)
    return state


def test_auto_takes_matching_engines_and_says_so(rig, machine):
    chain = backends.open_chain(rig.bundle)
    assert chain.description == "tensorrt-rtx 1.7.1.116 on Fake GPU (its engines for sm_86 match)"
    chain.close()
    assert rig.cuda.leaks() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rig, machine: cut(rig), r"CPU \(.*\); engines of tensorrt-rtx not used: .*parser\.engine: its hash"),
        (lambda rig, machine: setattr(machine, "gpu", CudaDevice(0, "X", "sm_120")), r"CPU.*; no engines for sm_120"),
        (lambda rig, machine: setattr(machine, "gpu", None), r"CPU \(no CUDA device found\)$"),
        (
            lambda rig, machine: setattr(rig.engines["mrem"], "fails", "x"),
            "CPU.*; engines .* not used: stage mrem: .*x",
        ),
        (lambda rig, machine: setattr(rig.cuda, "budget", 10), "CPU.*; engines of tensorrt-rtx not used: not enough"),
    ],
)
def test_auto_falls_back_and_says_why(rig, machine, change, said):
    change(rig, machine)
    chain = backends.open_chain(rig.bundle, threads=1)
    assert re.search(said, chain.description), chain.description


def test_auto_without_graphs_says_why_the_engines_were_not_used(rig, machine):
    cut(rig)
    for stage in rig.bundle.manifest.stages:
        (rig.bundle.folder / f"{stage.name}.onnx").unlink()
    with pytest.raises(UsageError, match=r"engines of tensorrt-rtx not used: .*parser\.engine.*pack the bundle again"):
        backends.open_chain(rig.bundle, threads=1)


def test_tensorrt_tunes_an_engine_for_a_model(rig):
    compiled = read_sidecar(rig.folder, "parser")
    assert fits_model(compiled, "any GPU")  # TensorRT-RTX compiles on the device
    tuned = replace(compiled, backend="tensorrt", gpu="RTX A6000")
    assert fits_model(tuned, "RTX A6000")
    assert not fits_model(tuned, "RTX 3060")
    assert fits_model(replace(tuned, target="ampere_plus"), "RTX 3060")


def test_the_cpu_is_the_cpu(rig, machine):
    assert "CPU (as asked)" in backends.open_chain(rig.bundle, device="cpu", threads=1).description
    with pytest.raises(UsageError, match="tensorrt-rtx runs on a GPU; use auto or cuda:N, not cpu"):
        backends.open_chain(rig.bundle, "tensorrt-rtx", "cpu")


def test_asked_for_engines_nothing_else_is_taken(rig, machine):
    cut(rig)
    with pytest.raises(UsageError, match="its hash differs"):
        backends.open_chain(rig.bundle, "tensorrt-rtx")
    with pytest.raises(UsageError, match=r"no engines of tensorrt for Fake GPU \(sm_86\), only for: none; build"):
        backends.open_chain(rig.bundle, "tensorrt")
    machine.gpu = None
    with pytest.raises(UsageError, match="no CUDA device 0, or no driver, is found here; pass backend='onnxruntime'"):
        backends.open_chain(rig.bundle, "tensorrt-rtx")
    with pytest.raises(UsageError, match="no CUDA device 3"):
        backends.open_chain(rig.bundle, "tensorrt-rtx", "cuda:3")


def test_a_missing_or_old_library_is_answered(monkeypatch):
    def load(name):
        if name == "tensorrt":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return SimpleNamespace(__version__="1.2.0")

    monkeypatch.setattr(library.importlib, "import_module", load)
    with pytest.raises(UsageError, match=r"needs tensorrt; install it with: pip install 'showface\[tensorrt\]'"):
        library.load_library("tensorrt")
    with pytest.raises(UsageError, match=r"tensorrt_rtx 1\.2\.0 is not supported, only ≥ 1\.4, < 2\.0"):
        library.load_library("tensorrt-rtx")


def test_versions_are_read():
    assert library.version_numbers("1.7.1.116") == (1, 7, 1, 116)
    assert library.version_numbers("10.13.0.post1") == (10, 13, 0)


def test_graphs_are_for_engines_and_a_fallback_says_that_it_has_none(rig, machine):
    chain = backends.open_chain(rig.bundle, cuda_graph=True, batch_limit=2)
    assert chain.description.endswith("; with CUDA graphs")
    assert chain.sizes == (1, 2)
    chain.close()
    with pytest.raises(UsageError, match="CUDA graphs are for engines: pass backend='tensorrt' "):
        backends.open_chain(rig.bundle, "onnxruntime", cuda_graph=True)
    cut(rig)
    chain = backends.open_chain(rig.bundle, threads=1, cuda_graph=True)
    assert chain.description.endswith("; without CUDA graphs, which only engines have")
