"""At the shipped widths no stage lets a face depend on its neighbours in the batch, bit for bit."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from showface.export.onnx_stages import export_stage, numpy_reference, reference_outputs, stage_modules
from showface.runtime.stages import STAGES
from showface.training.config import NetworkConfig
from showface.training.networks.mdrnets import MDRNets

BATCH = 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = MDRNets(NetworkConfig()).eval()
    with torch.no_grad():
        model.refiner.to_rgb.weight.normal_(0.0, 0.05)
    return model


@pytest.fixture(scope="module")
def tensors(model, chain_inputs):
    chosen = [i % len(chain_inputs[0]) for i in range(BATCH)]
    image, mask = (torch.from_numpy(array[chosen]) for array in chain_inputs)
    image = image + 0.01 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return numpy_reference(reference_outputs(model, image.clamp(-1, 1), mask))


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_batch_1_and_batch_n_are_equal(stage, model, tensors):
    data = export_stage(stage_modules(model)[stage.name], stage, model.config, False).SerializeToString()
    inputs = {name: np.ascontiguousarray(tensors[name]) for name in stage.inputs}
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        together = session.run(None, inputs)
        for k in (0, BATCH - 1):
            alone = session.run(None, {name: value[k : k + 1] for name, value in inputs.items()})
            for name, whole, single in zip(stage.outputs, together, alone, strict=True):
                np.testing.assert_array_equal(single[0], whole[k], err_msg=f"{name}, {threads} threads")
