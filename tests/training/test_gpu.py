"""Training on a real GPU: what lies on the device is saved, read again and learnt on from."""

import pytest
import torch

from showface.training.checkpoint import read_checkpoint
from showface.training.process import make_fabric
from showface.training.run.loop import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
INIT = ("../coarse/coarse.safetensors", "../parser/parser.safetensors")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("stage", ["layout", "coarse", "parser", "mdrnet"])
def test_a_run_leaves_a_checkpoint_and_goes_on(stage, compiled, data, stages, config):
    output, fabric = stages / f"{stage}-cuda-{compiled}", make_fabric("cuda", 1, "bf16")
    run = config(init=INIT if stage == "mdrnet" else (), precision="bf16", compile=compiled, checkpoint_every=2)
    train(stage, run, data, output, False, fabric)
    whole = read_checkpoint(output / f"{stage}.safetensors")
    assert whole.training[stage]["steps"] == 4
    assert all(torch.isfinite(weight).all() for weight in whole.weights.values())
    train(stage, run, data, output, True, fabric)  # it ended: its checkpoint is written again
    assert read_checkpoint(output / f"{stage}.safetensors").weights_sha256 == whole.weights_sha256
