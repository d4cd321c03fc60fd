"""Fixtures of the export's tests: a bundle of each ablation, and exports that trace only what is new."""

import json
from contextlib import contextmanager

import onnx
import pytest
import torch
from fixtures.shared import made_once

import showface.export.bundle as exporter
from showface.export import parity
from showface.training.checkpoint import model_from_checkpoint, save_checkpoint
from showface.training.config import MemoryConfig, MremConfig
from showface.training.networks.folding import round_folded
from showface.training.networks.stages import stage_modules

SMALL = {"channels": 16, "slots": 8, "encoder_width": 8}
# The stage that each one changes, and what it changes in the network's config.
ABLATIONS = {
    "no-memory": ("memory", {"memory": MemoryConfig(kind="none", **SMALL)}),
    "non-disentangled": ("memory", {"memory": MemoryConfig(kind="shared", **SMALL)}),
    "no-mrem": ("mrem", {"mrem": MremConfig(mining=False)}),
}


@pytest.fixture(scope="session")
def traces_what_differs(narrow_bundle, narrow_checkpoint):
    """Return a context in which the exporter traces only stages of other weights than the narrow checkpoint's.

    The others take the narrow bundle's graphs: to trace them again would prove nothing. The export proves each on the
    model all the same. The context gives the list of the stages that were traced.
    """
    model, checkpoint = model_from_checkpoint(narrow_checkpoint)
    if checkpoint.half:
        round_folded(model)
    known = {name: module.state_dict() for name, module in stage_modules(model).items()}
    trace = exporter.export_stage

    def differs(module, stage):
        weights = module.state_dict()
        keys = known.get(stage, {}).keys()
        return weights.keys() != keys or not all(torch.equal(weights[key], known[stage][key]) for key in keys)

    @contextmanager
    def exporting():
        traced = []

        def export_stage(module, stage, *rest):
            if not differs(module, stage.name):
                return onnx.load(narrow_bundle / f"{stage.name}.onnx")
            traced.append(stage.name)
            return trace(module, stage, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "export_stage", export_stage)
            yield traced

    return exporting


@pytest.fixture(scope="session", params=ABLATIONS)
def ablation(request, tmp_path_factory, narrow_model, make_checkpoint, chain_inputs, traces_what_differs):
    """Return a variant, its changed stage, its bundle's folder and the report of its export.

    The other stages have the weights of the narrow bundle.
    """
    changed, changes = ABLATIONS[request.param]

    def make(folder):
        folder.mkdir()
        path = folder / "model.safetensors"
        model, _ = model_from_checkpoint(make_checkpoint(path, **changes))
        weights, known = model.state_dict(), narrow_model.state_dict()
        kept = {key: value for key, value in known.items() if key in weights and not key.startswith(changed)}
        model.load_state_dict(kept, strict=False)
        save_checkpoint(path, model, model.config, [name for name, _ in model.named_children()], {})
        with pytest.MonkeyPatch.context() as patch, traces_what_differs() as traced:
            patch.setattr(parity, "PARITY_BATCHES", (1, 3))
            report = exporter.export_bundle(path, folder / "bundle", chain_inputs, 2)
        assert traced == [changed]
        (folder / "report.json").write_text(json.dumps(report))

    folder = made_once(tmp_path_factory, request.param, make)
    return request.param, changed, folder / "bundle", json.loads((folder / "report.json").read_text())
