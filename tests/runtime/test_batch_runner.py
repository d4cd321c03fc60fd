"""Batches that fail: halved when memory runs out, else retried one by one, so that one face fails alone."""

import numpy as np
import pytest

from showface.runtime.errors import InputError
from showface.runtime.inpainter import BatchRunner, Inpainter, is_out_of_memory


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


@pytest.fixture
def failing(inpainter, monkeypatch):
    """Return a function that lets the networks fail with ``error`` where ``wrong`` says so of a batch."""
    real = inpainter.chain.run
    sizes = []

    def start(wrong, error):
        def run(inputs):
            sizes.append(len(inputs["image"]))
            if wrong(inputs["image"]):
                raise error
            return real(inputs)

        monkeypatch.setattr(inpainter.chain, "run", run)
        return sizes

    return start


@pytest.fixture
def prepared(chain_inputs):
    image, mask = chain_inputs
    return [(image[k % 3], mask[k % 3]) for k in range(5)]


MEMORY = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 1073741824",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
    "[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc",
    "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY",
]


@pytest.mark.parametrize("text", MEMORY)
def test_what_the_backends_say_is_known(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("Non-zero status code returned while running Conv node"))


def test_out_of_memory_halves_the_batch_for_good_and_says_so(inpainter, failing, prepared, caplog):
    expected = BatchRunner(inpainter, 5).complete(prepared)
    sizes = failing(lambda image: len(image) > 2, RuntimeError(MEMORY[0]))
    caplog.set_level("INFO", "showface")
    runner = BatchRunner(inpainter, 5)
    for face, other in zip(runner.complete(prepared), expected, strict=True):
        np.testing.assert_array_equal(face, other)
    assert sizes == [5, 2, 2, 1]
    assert caplog.messages == ["out of memory with 5 faces a batch; going on with 2"]
    assert runner.limit == 2


def test_a_face_that_fails_fails_alone(inpainter, failing, prepared, caplog):
    bad = prepared[1][0]
    sizes = failing(lambda image: any(np.array_equal(i, bad) for i in image), RuntimeError("node failed"))
    caplog.set_level("INFO", "showface")
    completed = BatchRunner(inpainter, 3).complete(prepared[:3])
    assert sizes == [3, 1, 1, 1]
    assert [isinstance(face, InputError) for face in completed] == [False, True, False]
    assert "node failed" in str(completed[1])
    assert len(caplog.messages) == 1


def test_a_single_face_that_does_not_fit_fails(inpainter, failing, prepared):
    failing(lambda _: True, MemoryError())
    completed = BatchRunner(inpainter, 4).complete(prepared)
    assert all(isinstance(face, InputError) for face in completed)


def test_values_that_are_not_finite_fail_alone(inpainter, monkeypatch, prepared):
    real = inpainter.chain.run

    def run(inputs):
        tensors = real(inputs)
        tensors["completed_image"][1, 0, 5, 5] = np.nan
        return tensors

    monkeypatch.setattr(inpainter.chain, "run", run)
    completed = BatchRunner(inpainter, 3).complete(prepared[:3])
    assert [isinstance(face, InputError) for face in completed] == [False, True, False]
