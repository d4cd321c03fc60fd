"""Float16 engines from a float32 bundle in one command."""

import json

import pytest

from showface.cli import main, printing
from showface.export import parity
from showface.runtime.stages import STAGES


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["--threads", "1", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setattr(printing.tables, "width", 300)  # read once, when the module was imported
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))


def test_engines_in_float16_in_one_command(bundle_copy, capsys):
    """The way that ``build --check`` prints for sm_75, which compiles no float32 matrix product."""
    bundle = bundle_copy()
    arguments = ["build", bundle.folder, "--backend", "tensorrt-rtx", "--target", "sm_75", "--max-batch", 2]
    assert run(*arguments, "--check") == 1
    table = capsys.readouterr().out
    rows = [line for line in table.splitlines() if " sm_75 " in line]
    assert [next(stage.name for stage in STAGES if stage.name in line) for line in rows] == [s.name for s in STAGES]
    assert "build with precision fp16 (--precision)" in table
    half = bundle.folder.with_name(f"{bundle.folder.name}-fp16")
    assert run(*arguments, "--precision", "fp16") == 0
    engines = half / "engines" / "tensorrt-rtx-sm_75"
    assert {path.suffix for path in engines.iterdir()} == {".engine", ".json"}
    assert json.loads((engines / "mrem.json").read_text())["precision"] == "float16"
    assert f"engines go to {half}, the float16 bundle that was made" in " ".join(capsys.readouterr().err.split())
    assert run(*arguments, "--precision", "fp16") == 0  # the bundle is there, and so are its engines
    printed = capsys.readouterr()
    assert "that is there" in printed.err
    assert "nothing to do" in printed.err
    (half / "manifest.json").write_text((bundle.folder / "manifest.json").read_text())
    assert run(*arguments, "--precision", "fp16") == 2
    assert "is no float16 bundle of these weights" in " ".join(capsys.readouterr().err.split())
