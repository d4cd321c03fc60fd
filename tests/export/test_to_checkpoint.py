"""A checkpoint from a bundle: it computes the same, and its normalisations start from what faces show."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.models import build_narrow

from showface.export import parity
from showface.export.bundle import export_bundle
from showface.export.to_checkpoint import checkpoint_from_bundle
from showface.runtime.bundle import Manifest, open_bundle, write_bundle
from showface.runtime.errors import UsageError
from showface.training.checkpoint import load_weights, model_from_checkpoint, read_checkpoint, save_checkpoint
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import reference_outputs


@pytest.fixture(scope="module")
def rebuilt(narrow_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "rebuilt.safetensors"
    checkpoint_from_bundle(open_bundle(narrow_bundle), path)
    return path


def test_the_rebuilt_model_computes_what_the_first_did(rebuilt, narrow_model, chain_inputs):
    model, checkpoint = model_from_checkpoint(rebuilt)
    assert checkpoint.config == narrow_model.config
    assert checkpoint.stages == ("coarse", "parser", "memory", "mrem", "refiner")
    inputs = tuple(torch.from_numpy(array) for array in chain_inputs)
    found, wanted = reference_outputs(model, *inputs), reference_outputs(narrow_model, *inputs)
    for name in ("coarse_image", "memory_codes", "guidance", "completed_image"):
        torch.testing.assert_close(found[name], wanted[name], atol=5e-3, rtol=5e-3)  # weights are rounded to float16
    agreement = (found["semantic_map"] == wanted["semantic_map"]).float().mean()
    assert agreement > 0.995


@pytest.fixture(autouse=True)
def one_batch(monkeypatch):
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))  # that an export proves several is not at stake


def test_normalisations_start_from_what_they_see(trained_norms, traces_what_differs):
    """The statistics are those of the folded convolution's results: in training mode the parser gives the same."""
    model, faces, folder = trained_norms
    with traces_what_differs() as traced:
        export_bundle(folder / "model.safetensors", folder / "bundle", tuple(a.numpy() for a in faces), 1)
    assert traced == ["parser"]
    checkpoint_from_bundle(open_bundle(folder / "bundle"), folder / "rebuilt.safetensors")
    rebuilt, _ = model_from_checkpoint(folder / "rebuilt.safetensors")
    with torch.no_grad():
        coarse = model.coarse(*faces)
        wanted = model.parser(coarse)
        # Weights and statistics are rounded to float16, layer after layer; another scale would be off by its whole.
        assert (rebuilt.parser(coarse) - wanted).abs().mean() < 0.05 * wanted.std()
        assert not torch.equal(rebuilt.parser.spatial2[0].weight, model.parser.spatial2[0].weight)  # folded
        learning = rebuilt.parser.train()(coarse)
    assert (learning - wanted).abs().mean() < 0.2 * wanted.std()


@pytest.fixture
def trained_norms(chain_inputs, tmp_path):
    """A narrow model whose parser's normalisations have seen the faces, the faces, and a folder with its checkpoint."""
    model = build_narrow()
    faces = tuple(torch.from_numpy(array) for array in chain_inputs)
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in model.parser.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        coarse = model.coarse(*faces)
        for norm in norms:
            norm.momentum = 0.5
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
        model.parser.train()
        for _ in range(12):
            model.parser(coarse)
    model.eval()
    save_checkpoint(tmp_path / "model.safetensors", model, model.config, [n for n, _ in model.named_children()], {})
    return model, faces, tmp_path


def test_a_checkpoint_of_some_networks_starts_a_training(narrow_bundle, tmp_path):
    path = tmp_path / "some.safetensors"
    checkpoint_from_bundle(open_bundle(narrow_bundle), path, ("coarse", "parser"))
    checkpoint = read_checkpoint(path)
    assert checkpoint.stages == ("coarse", "parser")
    load_weights(MDRNets(checkpoint.config), checkpoint, path)


def test_it_exports_again_to_an_equal_bundle(rebuilt, narrow_bundle, chain_inputs, tmp_path, traces_what_differs):
    with traces_what_differs() as traced:
        report = export_bundle(rebuilt, tmp_path / "again", tuple(array[:1] for array in chain_inputs), 1)
    assert traced == []  # every weight is the first checkpoint's, bit for bit
    assert report["passed"]
    first, second = (open_bundle(folder).golden() for folder in (narrow_bundle, tmp_path / "again"))
    np.testing.assert_allclose(second["coarse_image"], first["coarse_image"][:1], atol=5e-3)


def changed(bundle, folder, **changes):
    """Return a copy of ``bundle`` with another manifest."""
    shutil.copytree(bundle.folder, folder)
    files = {name: bundle.read(name) for name in bundle.manifest.sha256}
    manifest: Manifest = replace(bundle.manifest, **changes)
    return write_bundle(folder, manifest, files)


@pytest.mark.parametrize(
    ("changes", "stages", "message"),
    [
        ({"network": None}, None, "its manifest holds no network config; an older version"),
        ({"precision": "int8"}, None, "stage coarse is int8; a checkpoint is made from the float32 bundle"),
        ({}, ("coarse", "nose"), "has no network 'nose'; choose from coarse, parser"),
        ({"network": {"image_size": 256, "widths": 1}}, None, "network: unknown key 'widths'"),
        ({"network": {"image_size": 256}}, None, r"coarse\.onnx: holds no weight 'prior'"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(changes, stages, message, narrow_bundle, tmp_path):
    bundle = open_bundle(narrow_bundle)
    if "precision" in changes:
        changes = {"precision": dict.fromkeys(bundle.manifest.precision, changes["precision"])}
    other = changed(bundle, tmp_path / "bundle", **changes)
    with pytest.raises(UsageError, match=message):
        checkpoint_from_bundle(other, tmp_path / "out.safetensors", stages)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_verb_writes_it_and_replaces_nothing(showface, narrow_bundle, tmp_path):
    command = ["export", narrow_bundle, tmp_path / "out.safetensors"]
    first = showface(*command, "--stages", "coarse")
    assert first.returncode == 0, first.stderr
    assert read_checkpoint(tmp_path / "out.safetensors").stages == ("coarse",)
    again = showface(*command)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    refused = showface(*command[:-1], tmp_path / "out", "--stages", "coarse")
    assert (refused.returncode, "--stages coarse: chooses" in refused.stderr) == (2, True)
    assert json.loads((narrow_bundle / "manifest.json").read_text())["network"]["image_size"] == 256
