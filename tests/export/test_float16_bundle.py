"""A float16 bundle from a float32 one: no checkpoint, no torch, judged, and engines built from it in one command."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from showface.cli import main
from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.torch_source import source_of_checkpoint
from showface.export import float16_bundle, parity
from showface.export.float16 import assert_float16
from showface.export.float16_bundle import export_float16
from showface.export.parity import scored_source
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import LABELS, SEMANTIC_MARGIN, STAGES

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnxscript", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(autouse=True)
def one_batch(monkeypatch):
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))


def test_every_stage_is_float16_and_equals_float32(narrow_bundle, chain_inputs, tmp_path):
    source = open_bundle(narrow_bundle)
    report = export_float16(source, tmp_path / "half", tuple(array[:1] for array in chain_inputs), 1)
    assert report["passed"]
    assert set(report["shares"]) == {stage.name for stage in STAGES}
    bundle = open_bundle(tmp_path / "half")
    assert set(bundle.manifest.precision.values()) == {"float16"}
    assert bundle.manifest.checkpoint_sha256 == source.manifest.checkpoint_sha256
    for stage in STAGES:
        assert_float16(onnx.load_model_from_string(bundle.model(stage)), stage.name)
    for name, value in source.golden().items():
        np.testing.assert_array_equal(bundle.golden()[name], value)
    again = tmp_path / "again"
    with pytest.raises(UsageError, match="made from a float32 bundle, and coarse is float16, parser is float16"):
        export_float16(bundle, again, None, 1)
    with pytest.raises(UsageError, match="half: exists already"):
        export_float16(source, tmp_path / "half", None, 1)


def test_a_float32_bundle_tells_by_which_lead_a_label_was_found(narrow_bundle, narrow_checkpoint, chain_inputs):
    """As PyTorch does; without it a label that flips on a tie could not be told from a fault."""
    case = Case("faces", dict(zip(("image", "mask"), chain_inputs, strict=True)))
    reference, found = source_of_checkpoint(narrow_checkpoint), scored_source(open_bundle(narrow_bundle), 1)
    expected, tensors = reference.chain(case), found.chain(case)
    assert set(tensors) == set(expected)
    np.testing.assert_allclose(tensors[SEMANTIC_MARGIN], expected[SEMANTIC_MARGIN], atol=1e-4)
    alone = found.stage(STAGES[1], expected)
    assert set(alone) == {LABELS, SEMANTIC_MARGIN}
    np.testing.assert_allclose(alone[SEMANTIC_MARGIN], expected[SEMANTIC_MARGIN], atol=1e-4)
    assert set(found.stage(STAGES[0], expected)) == {"coarse_image"}


def test_graphs_that_differ_are_not_kept(narrow_bundle, tmp_path, monkeypatch):
    real = float16_bundle.convert_to_float16

    def wrong(proto, islands, stage):
        half = real(proto, islands, stage)
        if stage == "refiner":
            bias = next(i for i in half.graph.initializer if i.name.startswith("detail.head.conv.bias"))
            bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, 0.5, np.float16), bias.name))
        return half

    monkeypatch.setattr(float16_bundle, "convert_to_float16", wrong)
    with pytest.raises(ShowfaceError, match=r"the float16 graph differs from .*nothing was kept; .*refiner: "):
        export_float16(open_bundle(narrow_bundle), tmp_path / "half", None, 1)
    assert list(tmp_path.iterdir()) == []


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["--threads", "1", *map(str, arguments)])
    return ended.value.code


def test_the_command_needs_no_torch(narrow_bundle, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "showface.cli", "--threads", "1", "export", narrow_bundle, tmp_path / "half"]
    done = subprocess.run(
        [*command, "--precision", "fp16"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    assert "refiner: 99.9% of the weights" in done.stdout
    assert set(json.loads((tmp_path / "half" / "manifest.json").read_text())["precision"].values()) == {"float16"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SOURCE", "OUT"], "is a bundle already; add --cpu, --precision fp16 or --occluder, or name a"),
        (["SOURCE", "OUT", "--precision", "int4"], "--precision: int4 is not made; use one of fp32, fp16"),
        (["EMPTY", "OUT"], "is neither a checkpoint nor a bundle; it has no manifest.json"),
        (["FILE", "OUT.onnx"], "one file is made from a bundle; export"),
        (["FILE", "OUT.safetensors"], "is none; give a bundle, or a folder to create"),
    ],
)
def test_what_cannot_be_exported_is_said(narrow_bundle, tmp_path, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    names = {"SOURCE": narrow_bundle, "EMPTY": tmp_path / "empty", "FILE": tmp_path / "file", "OUT": tmp_path / "out"}
    names |= {f"OUT{suffix}": tmp_path / f"out{suffix}" for suffix in (".onnx", ".safetensors")}
    assert run("export", *(names.get(argument, argument) for argument in arguments)) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not [*tmp_path.glob("out*")]
