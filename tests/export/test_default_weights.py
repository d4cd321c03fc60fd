"""The weights that ship, taken back into PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from showface.export.occluder import add_occluder
from showface.export.to_checkpoint import checkpoint_from_bundle
from showface.runtime import Inpainter
from showface.runtime.bundle import open_bundle
from showface.runtime.faces.occlusion import OcclusionSettings, find_occlusion
from showface.runtime.faces.tensors import prepare
from showface.training.checkpoint import model_from_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("default") / "mdrnet.safetensors"
    checkpoint_from_bundle(open_bundle(None), path)
    return model_from_checkpoint(path)[0]


@pytest.mark.parametrize("name", ["astronaut.png", "avatar-5.jpg"])
def test_no_activation_comes_near_the_end_of_float16(model, name):
    """Float16 ends at 65,504; a photograph out of the ordinary has room for thirty times an ordinary one."""
    largest = {}

    def look(module_name):
        def hook(_module, _inputs, output):
            if isinstance(output, torch.Tensor):
                largest[module_name] = float(output.abs().max())

        return hook

    hooks = [module.register_forward_hook(look(key)) for key, module in model.named_modules()]
    face = np.asarray(Image.open(EXAMPLES / "faces" / name).convert("RGB").resize((256, 256)))
    hole = np.asarray(Image.open(EXAMPLES / "masks" / f"{Path(name).stem}.png").resize((256, 256))) > 127
    with torch.inference_mode():
        model(*(torch.from_numpy(array)[None] for array in prepare(face, hole, 256, name)))
    for handle in hooks:
        handle.remove()
    assert len(largest) > 100
    assert max(largest.values()) <= 2000, max(largest, key=largest.get)
    assert max(largest.values()) > 1


def test_the_newer_occluder_finds_on_the_examples_what_the_shipped_one_finds(narrow_bundle, chain_inputs, tmp_path):
    kept = REPOSITORY / "training/checkpoints/occluder.safetensors"
    add_occluder(open_bundle(narrow_bundle), kept, tmp_path / "bundle", chain_inputs, 1)
    newer, shipped = (Inpainter.from_bundle(bundle, "cpu", 1) for bundle in (tmp_path / "bundle", None))
    overlaps = {}
    for path in sorted((EXAMPLES / "occluded").glob("*.jpg")):
        face = np.asarray(Image.open(path).convert("RGB").resize((256, 256)))
        image, _ = prepare(face, np.zeros((256, 256), bool), 256, path.name)
        probabilities = [inpainter.occlusion_probability(image[None])[0] for inpainter in (newer, shipped)]
        found = [find_occlusion(probability, OcclusionSettings()).hole for probability in probabilities]
        overlaps[path.stem] = np.logical_and(*found).sum() / max(1, np.logical_or(*found).sum())
        assert any(hole.any() for hole in found) == (path.stem != "clean")
    assert min(value for name, value in overlaps.items() if name != "clean") > 0.8, overlaps
