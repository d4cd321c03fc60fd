"""The device that was asked for is the device that is used, or the run stops: no GPU is needed to test that."""

import ctypes
from types import SimpleNamespace

import onnxruntime as ort
import pytest

from showface.runtime.backends import onnxruntime as backend
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.stages import STAGES

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Driver:
    """What ``ctypes`` gives for the CUDA driver: functions that return 0 on success."""

    def __init__(self, devices, init=0, count=0):
        self.devices, self.init, self.count = devices, init, count

    def cuInit(self, _flags):  # noqa: N802 - the driver's name
        return self.init

    def cuDeviceGetCount(self, target):  # noqa: N802 - the driver's name
        target._obj.value = self.devices
        return self.count


@pytest.fixture
def sessions(monkeypatch):
    """Let ONNX Runtime return sessions of the providers ``granted``; gather what it was asked for."""
    record = SimpleNamespace(granted=None, asked=[], devices=1)

    def create(data, options, providers):
        names = [p if isinstance(p, str) else p[0] for p in providers]
        record.asked.append(providers)
        stage = STAGES[len(record.asked) % len(STAGES) - 1]
        return SimpleNamespace(
            get_providers=lambda: record.granted or [*names, CPU],
            get_inputs=lambda: [SimpleNamespace(name=name) for name in stage.inputs],
            get_outputs=lambda: [SimpleNamespace(name=name) for name in stage.outputs],
        )

    monkeypatch.setattr(ort, "InferenceSession", create)
    monkeypatch.setattr(backend, "cuda_device_count", lambda: record.devices)
    return record


@pytest.mark.parametrize(("text", "index"), [("cpu", None), ("cuda", 0), ("cuda:", 0), ("cuda:0", 0), ("cuda:13", 13)])
def test_devices_are_parsed(text, index):
    assert backend.parse_device(text) == index


@pytest.mark.parametrize("text", ["", "gpu", "cuda:-1", "cuda:x", "cuda:1.0", "CPU", "cpu:0", "auto"])
def test_other_devices_are_refused(text):
    with pytest.raises(UsageError, match="use auto, cpu or cuda:N"):
        backend.parse_device(text)


@pytest.mark.parametrize(
    ("driver", "count"), [(Driver(3), 3), (Driver(0), 0), (Driver(3, init=100), 0), (Driver(3, count=1), 0)]
)
def test_the_driver_is_asked_for_its_devices(monkeypatch, driver, count):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert backend.cuda_device_count() == count


def test_without_a_driver_there_are_no_devices(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert backend.cuda_device_count() == 0


def test_a_cpu_session_is_refused_where_cuda_was_asked_for(sessions, narrow_bundle):
    sessions.granted = [CPU]
    with pytest.raises(UsageError, match=r"CUDA was asked for, but .* did not load.*pip install 'showface\[cuda\]'"):
        backend.open_chain(open_bundle(narrow_bundle), "cuda:0")


def test_a_cuda_session_runs_on_the_device_that_was_asked_for(sessions, narrow_bundle):
    sessions.devices = 2
    chain = backend.open_chain(open_bundle(narrow_bundle), "cuda:1")
    assert "on CUDA device 1 (as asked)" in chain.description
    assert chain.device == "cuda"
    assert sessions.asked == [[(CUDA, {"device_id": "1", "use_tf32": "0"})]] * len(STAGES)


def test_a_device_that_the_driver_does_not_report_is_refused(sessions, narrow_bundle):
    with pytest.raises(UsageError, match="--device cuda:1: the driver reports 1 CUDA devices; use --device cpu"):
        backend.open_chain(open_bundle(narrow_bundle), "cuda:1")
    assert sessions.asked == []


def test_auto_says_why_it_takes_the_cpu(sessions, narrow_bundle, monkeypatch):
    bundle = open_bundle(narrow_bundle)
    assert "CUDA device 0 (a CUDA device was found)" in backend.open_chain(bundle).description
    sessions.devices = 0
    sessions.asked.clear()
    chain = backend.open_chain(bundle)
    assert "CPU (no CUDA device found)" in chain.description
    assert chain.device == "cpu"
    assert sessions.asked == [[CPU]] * len(STAGES)
    sessions.devices, real = 1, backend.open_session

    def without_cuda(data, stage, index, threads):
        if index is not None:
            raise UsageError("out of memory")
        return real(data, stage, index, threads)

    monkeypatch.setattr(backend, "open_session", without_cuda)
    assert "CPU (a CUDA device was found, but cannot be used: out of memory)" in backend.open_chain(bundle).description
