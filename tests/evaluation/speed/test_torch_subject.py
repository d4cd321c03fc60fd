"""PyTorch as a baseline computes the chain, and its FLOP count is that of the layers."""

import numpy as np
import torch

from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.torch_source import source_of_checkpoint
from showface.evaluation.speed.torch_subject import MATMUL_GFLOP, MATMUL_SIDE, matmul_task, torch_subjects


def test_the_baseline_completes_as_the_reference_does(narrow_checkpoint, chain_inputs):
    threads = torch.get_num_threads()
    (subject,), gflop, _ = torch_subjects(narrow_checkpoint, False, threads)
    image, mask = (array[:1] for array in chain_inputs)
    expected = source_of_checkpoint(narrow_checkpoint).chain(Case("face", {"image": image, "mask": mask}))
    np.testing.assert_array_equal(subject.complete(image, mask), expected["completed_image"])
    assert set(gflop) == {"coarse", "parser", "memory", "mrem", "refiner", "chain"}


def test_the_flops_of_a_stage_are_those_of_its_layers(narrow_checkpoint):
    _, gflop, digest = torch_subjects(narrow_checkpoint, False, torch.get_num_threads())
    source = source_of_checkpoint(narrow_checkpoint)
    assert digest == source.identity.weights
    model = source.model
    counted = []

    def count(layer, inputs, output):
        kernel = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
        counted.append(2 * kernel * output.numel())

    for layer in model.refiner.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.refiner(torch.zeros(1, 3, 256, 256), torch.zeros(1, 1, 256, 256), torch.zeros(1, 16, 64, 64))
    assert gflop["refiner"] * 1e9 == sum(counted)


def test_the_yardstick_is_a_float32_product_of_the_stated_size():
    result = matmul_task()()
    assert result.shape == (MATMUL_SIDE, MATMUL_SIDE)
    assert result.dtype == torch.float32
    assert MATMUL_GFLOP * 1e9 == 2 * MATMUL_SIDE**3
