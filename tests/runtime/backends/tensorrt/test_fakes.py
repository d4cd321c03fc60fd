"""Each wrong use that the fakes are there to find does raise."""

import numpy as np
import pytest
from fakes.cuda import MisuseError

from showface.runtime.errors import DeviceLostError


def test_a_missing_wait_between_the_streams_is_a_race(quick_rig, batch_of, monkeypatch):
    with quick_rig.open() as chain:
        monkeypatch.setattr(quick_rig.cuda, "wait", lambda stream, event: None)
        with pytest.raises(MisuseError, match="race"):
            chain.complete(*batch_of(1))


def test_a_result_that_is_read_too_early_is_wrong(quick_rig, batch_of, expected, monkeypatch):
    image, mask = batch_of(4)
    with quick_rig.open() as chain:
        monkeypatch.setattr(quick_rig.cuda, "synchronize_event", lambda event: None)
        assert not np.array_equal(chain.complete(image, mask), expected(image, mask))
        monkeypatch.undo()


def test_use_after_free_and_double_free(cuda):
    stream, address = cuda.create_stream(), cuda.allocate(16)
    host = np.zeros(16, np.uint8)
    cuda.free(address)
    with pytest.raises(MisuseError, match="no device memory"):
        cuda.upload(address, host.ctypes.data, 16, stream)
    with pytest.raises(MisuseError, match="freed before"):
        cuda.free(address)
    with pytest.raises(MisuseError, match="no stream"):
        cuda.synchronize(99)
    with pytest.raises(MisuseError, match="never recorded"):
        cuda.wait(stream, cuda.create_event())


def test_memory_freed_under_work_and_overrun(cuda):
    stream, address, host = cuda.create_stream(), cuda.allocate(16), np.zeros(32, np.uint8)
    with pytest.raises(MisuseError, match="32 bytes of 16"):
        cuda.upload(address, host.ctypes.data, 32, stream)
    cuda.upload(address, host.ctypes.data, 16, stream)
    with pytest.raises(MisuseError, match="under way"):
        cuda.free(address)


def test_an_unbound_tensor_and_missing_scratch(quick_rig, cuda):
    engine = quick_rig.engines["coarse"]
    context = engine.create_execution_context("USER_MANAGED")
    stream = cuda.create_stream()
    for name in ("image", "mask"):
        assert context.set_input_shape(name, engine.shape(name, 1))
    assert not context.set_input_shape("image", (9, 3, 256, 256))
    with pytest.raises(MisuseError, match="no scratch memory"):
        context.execute_async_v3(stream)
    context.set_device_memory(cuda.allocate(4096), 4096)
    with pytest.raises(MisuseError, match="not bound"):
        context.execute_async_v3(stream)
    second = engine.create_execution_context("USER_MANAGED")
    with pytest.raises(MisuseError, match="no optimisation profile"):
        second.set_input_shape("image", engine.shape("image", 1))


def test_a_sticky_error_fails_every_later_call(cuda):
    stream, address = cuda.create_stream(), cuda.allocate(16)
    cuda.broken = "gone"
    for call in (cuda.activate, cuda.create_event, lambda: cuda.allocate(1), lambda: cuda.synchronize(stream)):
        with pytest.raises(DeviceLostError, match="gone"):
            call()
    with pytest.raises(DeviceLostError):
        cuda.free(address)
    assert cuda.arrays == {}


def test_a_second_logger_is_refused(quick_rig):
    trt = quick_rig.trt
    first = trt.Logger(trt.Logger.ERROR)
    trt.Runtime(first)
    trt.Runtime(first)
    with pytest.raises(MisuseError, match="logger"):
        trt.Runtime(trt.Logger(trt.Logger.ERROR))
    with pytest.raises(AttributeError):
        trt.Runtime(first).eror_recorder = None


def test_the_clock(cuda):
    cuda.bandwidth = 100
    first, second, event = cuda.create_stream(), cuda.create_stream(), cuda.create_event()
    address, host = cuda.allocate(100), np.zeros(100, np.uint8)
    cuda.upload(address, host.ctypes.data, 100, first)
    cuda.record(event, first)
    cuda.wait(second, event)
    cuda.enqueue(second, set(), {address}, lambda: None, 2.0)
    assert cuda.now == 0
    cuda.synchronize_event(event)
    assert cuda.now == 1
    cuda.synchronize(second)
    assert cuda.now == 3
    assert cuda.busy == {first: 1.0, second: 2.0}
