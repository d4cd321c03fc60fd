"""The device that was asked for is the device that is used, or the run stops: no GPU is needed to test that."""

import ctypes
import os
import re
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from showface.runtime.backends import onnxruntime as backend
from showface.runtime.backends import onnxruntime_binding as binding
from showface.runtime.backends.batches import Chunk, Shapes
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import DeviceLostError, ShowfaceError, UsageError
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
    """Let ONNX Runtime return sessions of the providers ``granted``; gather what it was asked for.

    A chain on CUDA works on host memory instead, and so do the sessions in truth.
    """
    record = SimpleNamespace(granted=None, asked=[], devices=1, entries=[], preloads=0)
    real = ort.InferenceSession

    def create(data, options, providers, enable_fallback):
        assert enable_fallback == 0
        names = [p if isinstance(p, str) else p[0] for p in providers]
        record.asked.append(providers)
        if CUDA in names:
            assert record.preloads == 1, "the libraries are loaded before the first session"
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        session = real(data, ort.SessionOptions(), providers=[CPU])
        return SimpleNamespace(
            disable_fallback=session.disable_fallback,
            io_binding=session.io_binding,
            run_with_iobinding=session.run_with_iobinding,
            get_providers=lambda: record.granted or [*names, CPU],
            get_inputs=session.get_inputs,
            get_outputs=session.get_outputs,
        )

    def preload():
        record.preloads += 1
        print("Failed to load libcublasLt.so.13: cannot open shared object file")

    on_host = ort.OrtValue.ortvalue_from_shape_and_type
    on_cuda = lambda shape, kind, device, index: on_host(shape, kind)  # noqa: E731
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", on_cuda)
    backend.preload_libraries.cache_clear()
    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
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


@pytest.mark.parametrize(("given", "found"), [(None, "LAZY"), ("EAGER", "EAGER")])
def test_the_driver_is_told_to_load_kernels_late_unless_the_user_has_said_otherwise(monkeypatch, given, found):
    monkeypatch.setenv("CUDA_MODULE_LOADING", given or "")  # restored afterwards
    if given is None:
        monkeypatch.delenv("CUDA_MODULE_LOADING")
    seen = []

    class Asked(Driver):
        def cuInit(self, flags):  # noqa: N802 - the driver's name; it reads the variable here
            seen.append(os.environ["CUDA_MODULE_LOADING"])
            return super().cuInit(flags)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Asked(1))
    assert backend.cuda_device_count() == 1
    assert seen == [found]


def test_without_a_driver_there_are_no_devices(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert backend.cuda_device_count() == 0


def test_a_cpu_session_is_refused_where_cuda_was_asked_for(sessions, narrow_bundle, capsys):
    sessions.granted = [CPU]
    with pytest.raises(UsageError, match=r"CUDA was asked for, but .* did not load") as caught:
        backend.open_chain(open_bundle(narrow_bundle), "cuda:0")
    assert re.search(
        r"pip install 'showface\[cuda\]' \(Failed to load libcublasLt\.so\.13.*device='cpu'", str(caught.value)
    )
    assert capsys.readouterr().out == ""  # what ONNX Runtime prints does not reach the terminal


def test_a_build_for_the_cpu_is_told_before_anything_is_opened(narrow_bundle, monkeypatch):
    """ONNX Runtime itself would say that nodes of the graph cannot run on CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    stage = STAGES[0]
    with pytest.raises(UsageError, match=r"^CUDA was asked for, but the installed ONNX Runtime is built for the CPU"):
        backend.open_session(open_bundle(narrow_bundle).model(stage), stage, 0, None)


def test_a_cuda_session_runs_on_the_device_that_was_asked_for(sessions, narrow_bundle):
    sessions.devices = 2
    chain = backend.open_chain(open_bundle(narrow_bundle), "cuda:1")
    assert "on CUDA device 1 (as asked)" in chain.description
    assert chain.device == "cuda"
    assert [entry[0][0] for entry in sessions.asked] == [CUDA] * len(STAGES)
    options = sessions.asked[0][0][1]
    assert (options["device_id"], options["use_tf32"]) == ("1", "0")
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert sessions.preloads == 1


@pytest.mark.parametrize(
    ("built", "driver", "providers", "remedy"),
    [
        ("13.0", (12, 4), [CUDA, CPU], r"built for CUDA 13\.0 and the driver runs CUDA up to 12\.4: update the NVIDIA"),
        ("13.0", (13, 0), [CPU], "built for the CPU: pip uninstall onnxruntime onnxruntime-gpu"),
        ("13.0", None, [CUDA, CPU], r"pip install 'showface\[cuda\]'"),
    ],
)
def test_the_remedy_fits_what_is_missing(sessions, narrow_bundle, monkeypatch, built, driver, providers, remedy):
    sessions.granted = [CPU]
    monkeypatch.setattr(ort, "cuda_version", built, raising=False)
    monkeypatch.setattr(backend, "driver_version", lambda: driver)
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    with pytest.raises(UsageError, match=remedy):
        backend.open_chain(open_bundle(narrow_bundle), "cuda:0")


def test_a_failed_run_is_not_repeated_on_the_cpu(narrow_bundle, chain_inputs, capsys):
    """The real fallback of ONNX Runtime: a session whose provider fails would go on with another one."""
    bundle = open_bundle(narrow_bundle)
    one = backend.open_session(bundle.model(STAGES[0]), STAGES[0], None, 1)

    def fail(*arguments):
        raise EPFail("CUDA failure 2: out of memory")

    one.session._sess = SimpleNamespace(run=fail, is_webgpu_graph_capture_enabled=lambda: False)
    with pytest.raises(EPFail):
        one.run({"image": chain_inputs[0], "mask": chain_inputs[1]})
    assert "Falling back" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "probe", "lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", None, True),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", "CUDA failure 719: unspecified launch failure", True),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", None, False),
        ("CUDA failure 2: out of memory ; GPU=0", None, False),
    ],
)
def test_a_lost_device_is_told_from_a_failed_batch(monkeypatch, said, probe, lost):
    def copy(array, device, index):
        assert (device, index) == ("cuda", 1)
        if probe is not None:
            raise RuntimeError(probe)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", copy)
    with pytest.raises(DeviceLostError if lost else EPFail, match=re.escape(said)), backend.device_errors(1):
        raise EPFail(said)
    with pytest.raises(EPFail), backend.device_errors(None):  # on the CPU nothing is asked of CUDA
        raise EPFail(said)


@pytest.fixture
def bound(narrow_bundle):
    """Return a chain with its tensors bound, on the host, and the chain that it has to equal."""
    bundle = open_bundle(narrow_bundle)
    sessions = [backend.open_session(bundle.model(s), s, None, 1) for s in bundle.manifest.stages]
    with_binding = binding.BoundChain(sessions, Shapes.of_bundle(bundle), "bound", "cpu")
    yield with_binding, backend.open_chain(bundle, "cpu", 1)
    with_binding.close()


def test_bound_tensors_equal_those_that_are_handed_on(bound, chain_inputs):
    chain, reference = bound
    chosen = [0, 1, 2, 0, 2, 1, 1, 0, 2, 0, 1]
    image, mask = chain_inputs[0][chosen], chain_inputs[1][chosen]
    expected = reference.complete(image, mask)
    allocated, allocate = [], chain.bind
    chain.bind = lambda batch: allocated.append(batch) or allocate(batch)
    np.testing.assert_array_equal(chain.complete(image, mask), expected)
    first = chain.submit(list(image[:3]), list(mask[:3]))
    second = chain.submit(image[3:5], mask[3:5])
    np.testing.assert_array_equal(second.result(), expected[3:5])
    np.testing.assert_array_equal(first.result(), expected[:3])
    assert sorted(allocated) == [2, 4, 8]  # each once; a batch of 1 was run when the chain was opened


def test_the_next_faces_are_gathered_while_the_device_works(bound, chain_inputs, monkeypatch):
    """The worker stands in the first batch's first stage; the second batch is ready for the device all the same."""
    chain, reference = bound
    image, mask = chain_inputs
    gathered, go, inside = [], threading.Event(), threading.Event()
    cut, run = Chunk.cut, ort.InferenceSession.run_with_iobinding

    def note(self, faces, target):
        gathered.append(threading.current_thread())
        cut(self, faces, target)

    def wait(self, binding):
        inside.set()
        assert go.wait(60)
        run(self, binding)

    monkeypatch.setattr(Chunk, "cut", note)
    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", wait)
    first = chain.submit(image[:1], mask[:1])
    assert inside.wait(60)
    second = chain.submit(image[1:2], mask[1:2])
    assert gathered == [threading.current_thread()] * 4  # images and masks of both
    go.set()
    for ticket, index in ((first, 0), (second, 1)):
        face = slice(index, index + 1)
        np.testing.assert_array_equal(ticket.result(), reference.complete(image[face], mask[face]))


def test_only_the_ends_of_the_chain_are_copied(bound, chain_inputs, monkeypatch, record_property):
    chain, _ = bound
    image, mask = (np.concatenate([array] * 3)[:8] for array in chain_inputs)
    chain.complete(image, mask)
    copied = {"up": 0, "down": 0}
    update, numpy = ort.OrtValue.update_inplace, ort.OrtValue.numpy

    def up(self, data):
        copied["up"] += data.nbytes
        update(self, data)

    def down(self):
        copied["down"] += (result := numpy(self)).nbytes
        return result

    monkeypatch.setattr(ort.OrtValue, "update_inplace", up)
    monkeypatch.setattr(ort.OrtValue, "numpy", down)
    monkeypatch.setattr(ort.InferenceSession, "run", None)  # would take and give arrays of the host
    chain.complete(image, mask)
    record_property("bytes a face", sum(copied.values()) / 8)
    assert sum(copied.values()) / 8 <= 1.9e6
    assert copied == {"up": image.nbytes + mask.nbytes, "down": image.nbytes}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i, m: (i[:0], m[:0]), "image has a batch of 0"),
        (lambda i, m: (i, m[:1]), "image has a batch of 3, mask one of 1"),
        (lambda i, m: (i.astype(np.float64), m), r"image of a face is float64"),
        (lambda i, m: (i, m[:, :, :128]), r"mask of a face is float32 \(1, 128, 256\), not float32 \(1, 256, 256\)"),
    ],
)
def test_wrong_faces_are_refused(bound, chain_inputs, change, named):
    with pytest.raises(UsageError, match=named):
        bound[0].complete(*change(*chain_inputs))


def test_a_chain_that_cannot_run_is_not_opened(narrow_bundle, monkeypatch):
    bundle = open_bundle(narrow_bundle)
    sessions = [backend.open_session(bundle.model(s), s, None, 1) for s in bundle.manifest.stages]

    def fail(self, values):
        raise EPFail("Could not load library libcudnn_graph.so.9")

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", fail)
    with pytest.raises(ShowfaceError, match=r"cannot run the chain on cpu device 0: .*libcudnn_graph"):
        binding.BoundChain(sessions, Shapes.of_bundle(bundle), "bound", "cpu")


def test_a_device_that_the_driver_does_not_report_is_refused(sessions, narrow_bundle):
    with pytest.raises(UsageError, match="device: cuda:1: the driver reports 1 CUDA devices; pass device='cpu'"):
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

    def without_cuda(data, stage, index, *rest):
        if index is not None:
            raise UsageError("out of memory")
        return real(data, stage, index, *rest)

    monkeypatch.setattr(backend, "open_session", without_cuda)
    assert "CPU (a CUDA device was found, but cannot be used: out of memory)" in backend.open_chain(bundle).description
