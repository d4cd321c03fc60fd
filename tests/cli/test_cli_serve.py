"""``showface serve`` and ``showface pack --triton`` before anything runs: what is wrong is one sentence."""

import builtins
import socket
import sys

import pytest

from showface import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line in this process and returns its exit code and stderr."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["showface", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, capsys.readouterr().err

    return start


def test_a_port_that_is_taken_is_named(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = run("serve", "--port", port)
    assert code == 2
    assert f"127.0.0.1:{port}: cannot be listened on: Address already in use; give another host or port" in text


def test_a_host_that_is_not_this_machine_is_named(run):
    code, text = run("serve", "--host", "192.0.2.1", "--port", 0)
    assert code == 2
    assert text.startswith("error: 192.0.2.1")
    assert "give another host" in text


def test_a_broken_bundle_ends_the_server_before_it_listens(run, tmp_path):
    code, text = run("serve", "--port", 0, "--bundle", tmp_path)
    assert code == 2
    assert "manifest.json: no bundle here" in text
    assert "serving on" not in text


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("uvicorn", ["serve"], "serve"), ("tritonclient.grpc.model_config_pb2", ["pack", "b", "o", "--triton"], "triton")],
)
def test_a_missing_extra_is_answered_with_the_command_that_mends_it(run, monkeypatch, module, arguments, extra):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    for name in [n for n in sys.modules if n.startswith(("showface.runtime.server", "showface.export.triton"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    code, text = run(*arguments)
    assert code == 2
    assert f"this needs {module}; install it with: pip install 'showface[{extra}]'" in text


def test_the_repository_is_written_and_named(run, narrow_bundle, tmp_path):
    code, text = run("pack", narrow_bundle, tmp_path / "models", "--triton", "--max-batch", 2)
    assert code == 0
    assert "showface_coarse, showface_parser" in text
    assert f"start with: tritonserver --model-repository {tmp_path / 'models'}" in text
    assert "max_batch_size: 2" in (tmp_path / "models" / "showface" / "config.pbtxt").read_text()


def test_engines_of_rtx_are_refused_for_triton(run, narrow_bundle, tmp_path):
    code, text = run("pack", narrow_bundle, tmp_path / "models", "--triton", "--backend", "tensorrt-rtx")
    assert code == 2
    assert "Triton has no backend for engines of TensorRT-RTX" in text
    assert not (tmp_path / "models").exists()
