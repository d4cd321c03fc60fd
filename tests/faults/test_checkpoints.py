"""Checkpoints and training states that nobody vouches for: what they ask for is compared before memory is taken."""

import json
import resource

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from safetensors.torch import save

from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import METADATA_KEY, model_from_checkpoint, read_checkpoint, save_checkpoint
from showface.training.run_files import load_state, save_state
from showface.training.weight_files import read_safetensors

from .soon import soon


@pytest.fixture(scope="module")
def small():
    from fixtures.models import build_narrow

    return build_narrow()


def changed(path, target, **changes):
    """Write a copy of a checkpoint whose header says something else, digest left out."""
    tensors, metadata = read_safetensors(path)
    found = {**json.loads(metadata[METADATA_KEY]), **changes}
    found.pop("sha256")
    target.write_bytes(save(tensors, {METADATA_KEY: json.dumps(found)}))
    return target


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, small):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, small, small.config, [name for name, _ in small.named_children()], {"steps": 1})
    return path


def network(checkpoint, **parts):
    config = json.loads(read_safetensors(checkpoint)[1][METADATA_KEY])["network"]
    for name, value in parts.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    return config


NETWORKS = [
    {"memory": {"slots": 10**12}}, {"memory": {"slots": 16000}}, {"memory": {"slots": 0}},
    {"memory": {"temperature": float("nan")}}, {"memory": {"kind": "\x1b[31m"}}, {"memory": None},
    {"parser": {"width": -5}}, {"parser": {"width": 1.5}}, {"parser": {"width": True}}, {"coarse": {"widths": []}},
    {"coarse": {"widths": [8] * 10**5}}, {"coarse": {"widths": [16000] * 4}}, {"coarse": {"surprise": 1}},
    {"refiner": {"dilations": [0]}}, {"refiner": []}, {"image_size": 10**8}, {"mrem": {"patch_size": 0}},
]  # fmt: skip


@pytest.mark.parametrize("parts", NETWORKS, ids=str)
def test_a_config_that_asks_for_anything_is_compared_before_memory_is_taken(checkpoint, tmp_path, parts):
    path = changed(checkpoint, tmp_path / "x.safetensors", network=network(checkpoint, **parts))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = soon(lambda: model_from_checkpoint(path))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert isinstance(error, ShowfaceError), error
    assert error.exit_code == 2
    assert str(error).isprintable()
    assert memory < 400 * 1024


HEADERS = [
    {"schema_version": 2}, {"schema_version": "1"}, {"schema_version": True}, {"schema_version": 10**30},
    {"network": []}, {"categories": 5}, {"categories": [[]]}, {"stages": {}}, {"stages": [5]}, {"stages": []},
    {"training": []}, {"surprise": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_a_header_of_another_kind_is_refused(checkpoint, tmp_path, changes):
    path = changed(checkpoint, tmp_path / "x.safetensors", **changes)
    error = soon(lambda: model_from_checkpoint(path))
    assert isinstance(error, ShowfaceError), error
    assert error.exit_code == 2


def test_one_flipped_bit_of_a_checkpoint_is_found(checkpoint, tmp_path):
    data, random, path = checkpoint.read_bytes(), np.random.default_rng(0), tmp_path / "x.safetensors"
    size = int.from_bytes(data[:8], "little")
    places = [*random.integers(8, 8 + size, 8), *random.integers(8 + size, len(data), 8)]
    assert soon(lambda: read_checkpoint(checkpoint)) is None
    for place in places:
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(random.integers(8))
        path.write_bytes(spoiled)
        assert isinstance(soon(lambda: read_checkpoint(path)), ShowfaceError), place


def test_a_graph_of_a_bundle_is_told_from_a_checkpoint(narrow_bundle):
    with pytest.raises(UsageError, match=r"coarse\.onnx: cannot be read as safetensors: .*; to name a bundle, give"):
        read_checkpoint(narrow_bundle / "coarse.onnx")


def test_a_checkpoint_of_an_older_version_is_read(checkpoint, tmp_path):
    path = changed(checkpoint, tmp_path / "x.safetensors")
    assert read_checkpoint(path).weights_sha256 == read_checkpoint(checkpoint).weights_sha256


class Plain:
    """A config without fields: what a state is compared with."""


def test_one_flipped_bit_of_a_training_state_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("showface.training.run_files.asdict", lambda config: {})
    state = {"step": 3, "weights": torch.arange(3000.0), "name": "x"}
    save_state(tmp_path, Plain(), state)
    data, random = (tmp_path / "state.pt").read_bytes(), np.random.default_rng(0)
    assert load_state(tmp_path, Plain())["step"] == 3
    for place in random.integers(0, len(data), 100):
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(random.integers(8))
        (tmp_path / "state.pt").write_bytes(spoiled)
        assert isinstance(soon(lambda: load_state(tmp_path, Plain())), ShowfaceError), place
    for cut in (0, 1, 100, len(data) - 1, len(data) - 40):
        (tmp_path / "state.pt").write_bytes(data[:cut])
        assert isinstance(soon(lambda: load_state(tmp_path, Plain())), ShowfaceError) or cut == len(data) - 40
    torch.save({"config": {}, **state}, tmp_path / "state.pt")  # as an older version did
    assert load_state(tmp_path, Plain())["step"] == 3
