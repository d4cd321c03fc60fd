"""Our calls and our fakes against the real modules: none of them needs a GPU or a driver to tell its signatures.

cuda-bindings answers every call with a status, and the classes of TensorRT-RTX carry their signatures in their
docstrings. What the fakes offer must exist there, with the same parameters.
"""

import ast
import inspect
import re
from pathlib import Path

import onnxruntime as ort
import pytest
from fakes.cuda import FakeCuda
from fakes.tensorrt import FakeContext, FakeEngine, FakeRtxContext, FakeRuntimeCache, FakeRuntimeConfig
from fakes.tensorrt_library import Diagnostics, FakeErrorRecorder, FakeLogger, fake_library

from showface.export import engines as builders
from showface.export.engines import worker
from showface.runtime.backends import onnxruntime as ort_backend
from showface.runtime.backends import tensorrt as ours
from showface.runtime.backends.batches import Shapes
from showface.runtime.backends.cuda_devices import cuda_device_count
from showface.runtime.backends.tensorrt import cuda as cuda_module
from showface.runtime.backends.tensorrt.cuda import CudaRuntime
from showface.runtime.backends.tensorrt.device import Context
from showface.runtime.backends.tensorrt.engine import deserialise
from showface.runtime.backends.tensorrt.messages import error_recorder, library_logger
from showface.runtime.backends.tensorrt.sidecar import EngineFolder
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import DeviceLostError, ShowfaceError, UsageError
from showface.runtime.stages import STAGES

trt = pytest.importorskip("tensorrt_rtx")
runtime = pytest.importorskip("cuda.bindings.runtime")
SOURCES = [path for package in (ours, builders) for path in sorted(Path(package.__file__).parent.glob("*.py"))]


def parameters(function):
    """Return the names of the parameters of each overload, without self."""
    try:
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        if names not in ([], ["args", "kwargs"]):
            return [names]
    except (TypeError, ValueError):
        pass
    found = []
    for line in (function.__doc__ or "").splitlines():
        match = re.match(r"^(?:\d+\. )?\w+\((.*)\) -> ", line)
        if match and "*args" not in match[1]:
            names = re.findall(r"(?:^|, )(\w+)(?=: )", match[1])
            found.append([name for name in names if name != "self"])
    return found


def public(kind):
    return {name: member for name, member in vars(kind).items() if not name.startswith("_") and callable(member)}


def cuda_calls():
    """Return name, number of arguments and line of each call of the CUDA runtime."""
    tree = ast.parse(Path(cuda_module.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    asked = [
        c for c in calls if getattr(c.func, "attr", "") in ("_call", "_ask") and isinstance(c.args[0], ast.Constant)
    ]
    return [(call.args[0].value, len(call.args) - 1, call.lineno) for call in asked]


@pytest.mark.parametrize(("name", "given", "line"), cuda_calls(), ids=lambda value: str(value))
def test_the_cuda_runtime_takes_what_it_is_given(name, given, line):
    (taken,) = parameters(getattr(runtime, name)) or [[]]
    assert len(taken) == given, f"cuda.py:{line}: {name} takes {taken}"


def test_the_names_of_the_cuda_runtime_exist():
    text = Path(cuda_module.__file__).read_text()
    names = set(re.findall(r"self\._api\.([\w.]+)", text))
    assert {"cudaStreamNonBlocking", "cudaEventBlockingSync", "cudaMemcpyKind.cudaMemcpyHostToDevice"} <= names
    for name in names:
        target = runtime
        for part in name.split("."):
            target = getattr(target, part)
    assert int(runtime.cudaGraphExec_t(4096)) == int(runtime.cudaStream_t(4096)) == 4096


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a device")
def test_without_a_driver_the_first_call_says_so():
    with pytest.raises(UsageError, match="cuda:0: CUDA device 0: cudaSetDevice: "):
        CudaRuntime(0)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            (12, 4),
            r"the driver runs CUDA up to 12\.4; install bindings that suit it with: pip install 'cuda-bindings==12",
        ),
        ((13, 0), "the driver runs CUDA up to 13.0; update the NVIDIA driver"),
        (None, "needs a newer one; update the NVIDIA driver"),
    ],
)
def test_an_old_driver_is_answered_with_bindings_that_suit_it(monkeypatch, found, said):
    monkeypatch.setattr(cuda_module, "driver_version", lambda: found)
    monkeypatch.setattr(runtime, "cudaSetDevice", lambda index: (runtime.cudaError_t.cudaErrorInsufficientDriver,))
    with pytest.raises(UsageError, match=rf"insufficient.*\(35\); cuda-bindings [\d.]+ .*{said}"):
        CudaRuntime(0)


def test_bindings_that_raise_where_others_answer_are_understood(monkeypatch):
    def missing(index):
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(runtime, "cudaSetDevice", missing)
    with pytest.raises(UsageError, match=r"cudaSetDevice: Failed to dlopen libcuda\.so\.1"):
        CudaRuntime(0)


@pytest.fixture
def answers(monkeypatch):
    """Let functions of the CUDA runtime answer as they are told, and gather the calls."""
    calls = []

    def answer(name, status="cudaSuccess", *results):
        def function(*arguments):
            calls.append((name, *arguments))
            return (getattr(runtime.cudaError_t, status), *results)

        monkeypatch.setattr(runtime, name, function)

    answer("cudaSetDevice")
    answer.calls = calls
    return answer


@pytest.mark.parametrize(
    ("status", "lost"),
    [("cudaErrorIllegalAddress", True), ("cudaErrorLaunchFailure", True), ("cudaErrorInvalidValue", False)],
)
def test_the_loss_of_a_device_is_told_from_another_error(answers, status, lost):
    answers("cudaStreamSynchronize", status)
    code = int(getattr(runtime.cudaError_t, status))
    with pytest.raises(ShowfaceError, match=rf"cudaStreamSynchronize: .* \({code}\)") as caught:
        CudaRuntime(0).synchronize(7)
    assert isinstance(caught.value, DeviceLostError) is lost
    assert ("run the same again" in str(caught.value)) is lost


@pytest.mark.parametrize(("cores", "blocking"), [(4, True), (64, False)])
def test_few_cores_do_not_spin_while_they_wait(answers, monkeypatch, cores, blocking):
    monkeypatch.setattr(cuda_module.os, "cpu_count", lambda: cores)
    answers("cudaEventCreateWithFlags", "cudaSuccess", 5)
    CudaRuntime(0).create_event()
    (_, flags) = answers.calls[-1]
    assert bool(flags & runtime.cudaEventBlockingSync) is blocking
    assert flags & runtime.cudaEventDisableTiming


def test_a_capture_that_fails_leaves_no_graph_and_no_error_behind(answers):
    answers("cudaGetLastError", "cudaErrorStreamCaptureInvalidated")
    answers("cudaGraphDestroy")
    answers("cudaStreamEndCapture", "cudaErrorStreamCaptureInvalidated", None)
    cuda = CudaRuntime(0)
    with pytest.raises(ShowfaceError, match=r"cudaStreamEndCapture: .* \(901\)"):
        cuda.end_capture(7)
    assert answers.calls[-1] == ("cudaGetLastError",)
    answers("cudaStreamEndCapture", "cudaSuccess", runtime.cudaGraph_t(4096))
    cuda.abort_capture(7)
    assert [call[0] for call in answers.calls[-3:]] == ["cudaStreamEndCapture", "cudaGraphDestroy", "cudaGetLastError"]
    answers("cudaGraphInstantiate", "cudaSuccess", runtime.cudaGraphExec_t(64))
    answers("cudaGraphUpload", "cudaErrorInvalidValue")
    answers("cudaGraphExecDestroy")
    with pytest.raises(ShowfaceError, match="cudaGraphUpload"):
        cuda.end_capture(7)
    assert ("cudaGraphExecDestroy", 64) in answers.calls


def test_the_fake_of_cuda_takes_what_the_real_one_takes():
    for name, function in public(CudaRuntime).items():
        assert parameters(getattr(FakeCuda, name)) == parameters(function), name


OWN = {  # what tests reach for in a fake, and no library has
    "compute", "shape", "profile", "dtype", "refuse", "seconds", "find_engine",
}  # fmt: skip


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (Context, trt.IExecutionContext),
        (FakeContext, trt.IExecutionContext),
        (FakeRtxContext, trt.IExecutionContext),
        (FakeEngine, trt.ICudaEngine),
        (FakeRuntimeConfig, trt.IRuntimeConfig),
        (FakeRuntimeCache, trt.IRuntimeCache),
        (FakeErrorRecorder, trt.IErrorRecorder),
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_a_fake_offers_the_library_has(fake, real):
    for name, function in public(fake).items():
        if name in OWN:
            continue
        assert hasattr(real, name), name
        theirs, mine = parameters(getattr(real, name)), (parameters(function) or [[]])[0]
        assert any(mine == names[: len(mine)] for names in theirs) or theirs == [], (name, mine, theirs)


def test_the_properties_that_are_set_are_properties():
    for kind, names in (
        (trt.IRuntimeConfig, FakeRuntimeConfig.__slots__),
        (trt.Runtime, ("error_recorder", "engine_host_code_allowed")),
        (trt.Logger, ("min_severity",)),
        (trt.ICudaEngine, ("num_optimization_profiles", "num_io_tensors", "device_memory_size_v2")),
    ):
        for name in names:
            if not name.startswith("_"):
                assert isinstance(inspect.getattr_static(kind, name), property), (kind, name)


def test_the_names_of_the_library_exist():
    used = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if re.fullmatch(r"trt(\.\w+)+", text):
                used.add(text)
    assert {"trt.BuilderFlag.REQUIRE_USER_ALLOCATION", "trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE"} <= used
    for text in used:
        target = trt
        for part in text.split(".")[1:]:
            assert hasattr(target, part), text
            target = getattr(target, part)


def test_the_fake_library_has_no_name_that_the_real_one_lacks(cuda):
    fake = fake_library("1.7", cuda, lambda data: None)
    for name in vars(fake):
        assert hasattr(trt, name), name
    for flag in Diagnostics:
        assert int(getattr(trt.EngineInvalidityDiagnostics, flag.name)) == int(flag)
    assert hasattr(trt.Logger, "ERROR")
    assert hasattr(trt.Logger, "VERBOSE")
    assert FakeLogger.ERROR is not None


@pytest.fixture
def cuda():
    return FakeCuda()


def test_the_builder_s_helpers_take_the_keywords_that_they_are_given(monkeypatch):
    monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", "1")
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import CreateConfig, CreateNetwork, EngineBytesFromNetwork
    from polygraphy.backend.trt.config import _CreateConfigCommon

    common = set(inspect.signature(_CreateConfigCommon.__init__).parameters)
    kinds = {kind.__name__: kind for kind in (CreateConfigRTX, CreateConfig, CreateNetwork, EngineBytesFromNetwork)}
    given = 0
    for node in ast.walk(ast.parse(Path(worker.__file__).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds:
            taken = common | set(inspect.signature(kinds[node.func.id].__init__).parameters)
            for keyword in node.keywords:
                assert keyword.arg in taken, (node.func.id, keyword.arg)
                given += 1
    assert given > 10


def test_the_real_library_refuses_junk_with_its_reason(tmp_path):
    """Deserialising needs no GPU to fail: the path of a refusal, from the real diagnosis to the sentence."""
    bundle = open_bundle()
    folder = EngineFolder(bundle, "tensorrt-rtx", "sm_86")
    sidecar = type("Sidecar", (), {"version_compatible": False})
    with pytest.raises(
        UsageError, match=r"mrem\.engine: tensorrt-rtx .* refuses it on this GPU \(.*malformed engine.*\); re"
    ):
        deserialise(trt, b"x" * 4096, folder, sidecar, STAGES[3], Shapes.of_bundle(bundle))


def test_the_real_recorder_gathers_and_forgets():
    recorder = error_recorder(trt)
    given = trt.Runtime(library_logger(trt))
    given.error_recorder = recorder
    assert given.deserialize_cuda_engine(b"x" * 4096) is None
    assert recorder.num_errors() > 0
    assert isinstance(recorder.get_error_desc(0), str)
    assert recorder.take() != ""
    assert recorder.take() == ""
    assert library_logger(trt) is library_logger(trt)


def test_the_library_logs_everything_under_verbose(caplog):
    assert library_logger(trt).min_severity == trt.Logger.ERROR
    with caplog.at_level("DEBUG", "showface"):  # what --verbose sets
        assert library_logger(trt).min_severity == trt.Logger.VERBOSE
    assert library_logger(trt).min_severity == trt.Logger.ERROR


def test_the_options_of_onnx_runtime_are_known():
    folder = Path(ort.__file__).parent / "capi"
    libraries = b"".join(
        p.read_bytes() for p in [*folder.glob("libonnxruntime.so*"), *folder.glob("*pybind11_state*.so")]
    )
    source = Path(ort_backend.__file__).read_text()
    entries = re.findall(r'add_session_config_entry\("([^"]+)"', source)
    assert len(entries) == 3
    for entry in [*entries, "ORT_DISABLE_TELEMETRY"]:
        assert entry.encode() in libraries, entry
    provider = folder / "libonnxruntime_providers_cuda.so"
    if not provider.exists():
        pytest.skip("this ONNX Runtime is built for the CPU")
    data = provider.read_bytes()
    for name, value in {"device_id": "0", **ort_backend.CUDA_OPTIONS}.items():
        assert name.encode() in data, name
        assert value.isdigit() or value.encode() in data, value
    assert hasattr(ort, "preload_dlls")
