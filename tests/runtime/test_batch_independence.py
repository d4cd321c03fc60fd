"""In the shipped bundle no stage lets a face depend on its neighbours in the batch, bit for bit."""

import numpy as np
import onnxruntime as ort
import pytest

from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.stages import STAGES

BATCH = 3  # odd, so that two threads share it unevenly


@pytest.fixture(scope="module")
def bundle():
    return open_bundle(None)


@pytest.fixture(scope="module")
def tensors(bundle, chain_inputs):
    image, mask = (array[:BATCH] for array in chain_inputs)
    noise = np.random.default_rng(1).normal(0.0, 0.01, image.shape)
    noisy = (image + noise).clip(-1, 1).astype(np.float32)
    return open_chain(bundle, "cpu", 2).run({"image": noisy, "mask": mask})


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_batch_1_and_batch_n_are_equal(stage, bundle, tensors):
    inputs = {name: np.ascontiguousarray(tensors[name]) for name in stage.inputs}
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(bundle.model(stage), options, providers=["CPUExecutionProvider"])
        together = session.run(None, inputs)
        for k in (0, BATCH - 1):
            alone = session.run(None, {name: value[k : k + 1] for name, value in inputs.items()})
            for name, whole, single in zip(stage.outputs, together, alone, strict=True):
                np.testing.assert_array_equal(single[0], whole[k], err_msg=f"{name}, {threads} threads")
