"""Configuration from plain values and TOML: what is refused, and that nothing is lost on the way."""

import tomllib
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import pytest

import showface.training.configs
from showface.runtime.errors import UsageError
from showface.training.config import MemoryConfig, NetworkConfig, PhaseConfig, TrainConfig
from showface.training.config_reader import config_from_dict, config_from_toml

CONFIGS = Path(str(resources.files(showface.training.configs)))
SHIPPED = sorted(CONFIGS.glob("*/*.toml"))  # without the recipes, which stand beside their folders
MINIMAL = '[sources.a]\nimages = "a"\n[phases.p]\nsteps = 3\n'


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"image_sise": 64}, "'image_sise'"),
        ({"memory": {"slotts": 1}}, "'slotts'"),
        ({"image_size": "64"}, "image_size"),
        ({"image_size": 64.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"image_size": None}, "image_size"),
        ({"memory": {"kind": "entangled"}}, "memory.kind"),
        ({"memory": {"temperature": True}}, "memory.temperature"),
        ({"memory": 3}, "memory"),
        ({"mrem": {"mining": 1}}, "mrem.mining"),
        ({"coarse": {"widths": 8}}, "coarse.widths"),
        ({"coarse": {"widths": [8, "8"]}}, "coarse.widths[1]"),
    ],
)
def test_wrong_value_names_its_key(data, key):
    with pytest.raises(UsageError) as caught:
        config_from_dict(NetworkConfig, data)
    assert key in str(caught.value)


def test_integer_is_taken_as_float():
    temperature = config_from_dict(MemoryConfig, {"temperature": 2}).temperature
    assert temperature == 2.0
    assert isinstance(temperature, float)


def test_optional_value():
    assert config_from_dict(PhaseConfig, {"steps": 1, "crop": None}).crop is None
    assert config_from_dict(PhaseConfig, {"steps": 1, "crop": 64}).crop == 64
    with pytest.raises(UsageError, match="crop"):
        config_from_dict(PhaseConfig, {"steps": 1, "crop": "64"})


def test_network_round_trip():
    config = NetworkConfig(64, memory=MemoryConfig("shared", temperature=0.5))
    assert config_from_dict(NetworkConfig, asdict(config)) == config
    assert config_from_dict(NetworkConfig, {}) == NetworkConfig()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_configs_parse(path):
    config = config_from_toml(TrainConfig, path)
    assert config.steps > 0
    assert config.network == config_from_dict(
        NetworkConfig, tomllib.loads(path.read_text(encoding="utf-8")).get("network", {})
    )


def test_configs_are_shipped():
    folders = {path.parent.name for path in SHIPPED}
    assert folders == {"ablation", "occluder", "paper", "paper-ffhq", "single-gpu", "small-cpu"}


def test_toml_error_names_file_and_key(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL + "[network.memory]\nslots = 1.5\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        config_from_toml(TrainConfig, path)
    assert "run.toml" in str(caught.value)
    assert "network.memory.slots" in str(caught.value)


@pytest.mark.parametrize("content", [b"steps = = 1", b"\xff\xfe", None])
def test_unreadable_toml(tmp_path, content):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.toml"):
        config_from_toml(TrainConfig, path)


def test_missing_required_key(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[phases.p]\nsteps = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="sources"):
        config_from_toml(TrainConfig, path)


def test_phase_at():
    phases = {"a": PhaseConfig(2), "b": PhaseConfig(1, 4)}
    config = TrainConfig({}, phases)
    assert config.steps == 3
    assert [config.phase_at(i) for i in range(3)] == [phases["a"], phases["a"], phases["b"]]
    with pytest.raises(ValueError, match="3"):
        config.phase_at(3)
