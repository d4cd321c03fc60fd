"""Fixtures of the export's tests: a bundle of each ablation."""

import onnx
import pytest

import showface.export.bundle as exporter
from showface.export import parity
from showface.training.checkpoint import model_from_checkpoint, save_checkpoint
from showface.training.config import MemoryConfig, MremConfig

SMALL = {"channels": 16, "slots": 8, "encoder_width": 8}
# The stage that each one changes, and what it changes in the network's config.
ABLATIONS = {
    "no-memory": ("memory", {"memory": MemoryConfig(kind="none", **SMALL)}),
    "non-disentangled": ("memory", {"memory": MemoryConfig(kind="shared", **SMALL)}),
    "no-mrem": ("mrem", {"mrem": MremConfig(mining=False)}),
}


@pytest.fixture(scope="session", params=ABLATIONS)
def ablation(request, tmp_path_factory, narrow_bundle, narrow_model, make_checkpoint, chain_inputs):
    """Return a variant, its changed stage, its bundle's folder and the report of its export.

    The other stages have the weights of the narrow bundle and take its graphs; the export proves each on the model.
    """
    changed, changes = ABLATIONS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model, _ = model_from_checkpoint(make_checkpoint(folder / "model.safetensors", **changes))
    kept = {k: v for k, v in narrow_model.state_dict().items() if k in model.state_dict() and not k.startswith(changed)}
    assert all(any(key.startswith(stage) for key in kept) for stage in ("coarse", "parser", "refiner"))
    model.load_state_dict(kept, strict=False)
    save_checkpoint(folder / "model.safetensors", model, model.config, [n for n, _ in model.named_children()], {})

    trace = exporter.export_stage

    def export_stage(module, stage, *rest):
        return trace(module, stage, *rest) if stage.name == changed else onnx.load(narrow_bundle / f"{stage.name}.onnx")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "PARITY_BATCHES", (1, 3))
        patch.setattr(exporter, "export_stage", export_stage)
        report = exporter.export_bundle(folder / "model.safetensors", folder / "bundle", chain_inputs, 2)
    return request.param, changed, folder / "bundle", report
