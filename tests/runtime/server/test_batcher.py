"""The thread of the networks alone: what it gathers, what it leaves out, and what an error of the networks does."""

import threading

import numpy as np
import pytest

from showface.runtime.errors import DeviceLostError, InputError
from showface.runtime.server.batcher import Batcher, NetworksFailed


class Runner:
    """Doubles its images; notes each batch, and may be held up or fail."""

    def __init__(self, limit):
        self.limit, self.batches, self.error = limit, [], None
        self.free = threading.Event()
        self.free.set()

    def complete(self, faces):
        assert self.free.wait(30)
        self.batches.append([int(image[0, 0, 0]) for image, _ in faces])
        if self.error is not None:
            raise self.error
        return [InputError("not finite") if image[0, 0, 0] == 13 else image * 2 for image, _ in faces]


@pytest.fixture
def runner():
    return Runner(3)


@pytest.fixture
def batcher(runner):
    with Batcher(runner, 0.05, lambda size: None) as batcher:
        yield batcher


def submit(batcher, *numbers):
    mask = np.zeros((1, 4, 4), np.float32)
    return [batcher.submit(np.full((3, 4, 4), number, np.float32), mask) for number in numbers]


def test_faces_are_gathered_up_to_the_limit_and_each_gets_its_own(runner, batcher):
    runner.free.clear()
    futures = submit(batcher, 1, 2, 3, 4, 5)
    runner.free.set()
    assert [int(future.result(30)[0, 0, 0]) for future in futures] == [2, 4, 6, 8, 10]
    assert runner.batches == [[1, 2, 3], [4, 5]]


def test_a_face_that_is_given_up_before_its_batch_is_not_computed(runner, batcher):
    runner.free.clear()
    first = submit(batcher, 1, 2, 3)
    others = submit(batcher, 4, 5)
    assert others[0].cancel()
    runner.free.set()
    assert others[1].result(30)[0, 0, 0] == 10
    assert all(future.result(30) is not None for future in first)
    assert runner.batches == [[1, 2, 3], [5]]


def test_one_face_that_fails_does_not_touch_the_others(batcher):
    good, bad = submit(batcher, 1, 13)
    assert good.result(30)[0, 0, 0] == 2
    with pytest.raises(NetworksFailed, match="not finite"):
        bad.result(30)


def test_the_thread_outlives_an_error_of_the_networks(runner, batcher):
    runner.error = RuntimeError("the device is gone")
    with pytest.raises(NetworksFailed, match="RuntimeError: the device is gone"):
        submit(batcher, 1)[0].result(30)
    runner.error = None
    assert submit(batcher, 2)[0].result(30)[0, 0, 0] == 4


def test_a_lost_device_is_remembered(runner, batcher):
    assert not batcher.lost
    runner.error = DeviceLostError("every call fails")
    with pytest.raises(NetworksFailed, match="every call fails"):
        submit(batcher, 1)[0].result(30)
    assert batcher.lost


def test_closing_completes_what_was_submitted(runner):
    batcher = Batcher(runner, 5.0, lambda size: None)
    futures = submit(batcher, 1, 2)
    batcher.close()
    assert [int(future.result(0)[0, 0, 0]) for future in futures] == [2, 4]
