"""``showface info`` warns of what about an installation works otherwise than its user may expect."""

import importlib.metadata

import pytest

from showface.cli import main


def rows(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["info"])
    assert ended.value.code == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]


def test_a_good_installation_is_not_warned_of(capsys, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    assert rows(capsys) == []


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_telemetry_that_the_user_switched_on_is_named(capsys, monkeypatch, value):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    (warning,) = rows(capsys)
    assert "telemetry is on; unset ORT_DISABLE_TELEMETRY" in warning


def test_two_onnx_runtimes_in_one_folder_are_named(capsys, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.31.1" if name.startswith("onnxruntime") else real(name)
    )
    (warning,) = rows(capsys)
    assert "onnxruntime and onnxruntime-gpu are both installed" in warning
    assert "pip uninstall both" in warning
