"""The CPU form of a bundle: what it computes, what it is refused for, and that nothing wrong is kept."""

import numpy as np
import onnx
import pytest
from fixtures.graphs import operators

from showface.calibration.calibrate import Settings, calibrate
from showface.cli import main
from showface.export import parity
from showface.export.cpu_form import bundle as cpu_bundle
from showface.export.cpu_form.bundle import LIMIT, export_cpu_form
from showface.export.engines.build import build_engines
from showface.export.engines.request import BuildOptions, engine_request
from showface.export.float16_bundle import export_float16
from showface.export.occluder import add_occluder
from showface.export.to_checkpoint import checkpoint_from_bundle
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import MANIFEST_FILE, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.stages import CHAIN_OUTPUT, STAGES


@pytest.fixture(scope="module")
def formed(narrow_bundle, tmp_path_factory):
    """Return the CPU form of the narrow bundle."""
    folder = tmp_path_factory.mktemp("form") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "PARITY_BATCHES", (1,))
        found = export_cpu_form(open_bundle(narrow_bundle), folder, 1)
    assert set(found) == {stage.name for stage in STAGES} - {"parser"}  # labels are judged in the chain
    assert max(found.values()) <= LIMIT
    return open_bundle(folder)


def test_the_chain_computes_the_same(narrow_bundle, formed, chain_inputs):
    inputs = dict(zip(("image", "mask"), chain_inputs, strict=True))
    plain, form = (open_chain(bundle, "cpu", 1).run(inputs) for bundle in (open_bundle(narrow_bundle), formed))
    np.testing.assert_allclose(form[CHAIN_OUTPUT], plain[CHAIN_OUTPUT], atol=LIMIT)


def test_every_rewrite_found_its_place(narrow_bundle, formed):
    """The patterns are those that the exporter writes; one that it writes otherwise would be missed in silence."""
    found = {stage.name: operators(onnx.load_from_string(formed.model(stage))) for stage in STAGES}
    names = {s.name: [n.name for n in onnx.load_from_string(formed.model(s)).graph.node] for s in STAGES}
    assert "BatchNormalization" not in found["coarse"]
    assert any(name.endswith("_subpixel_00") for name in names["coarse"])
    assert any(name.endswith("_rows") for name in names["coarse"])
    assert any(name.endswith("_rows") for name in names["refiner"])
    assert "Clip" in found["refiner"]
    assert "Neg" not in found["refiner"]
    plain = onnx.load_from_string(open_bundle(narrow_bundle).model(STAGES[2]))
    assert operators(plain).count("Transpose") == found["memory"].count("Transpose") + 1  # unshuffled no more


def test_the_manifest_says_so_and_older_readers_refuse_it(formed, narrow_bundle):
    assert formed.manifest.form == "cpu"
    assert formed.manifest.weights_dtype == "float32"
    assert formed.manifest.checkpoint_sha256 == open_bundle(narrow_bundle).manifest.checkpoint_sha256
    assert '"form"' not in (narrow_bundle / MANIFEST_FILE).read_text()


def test_another_form_is_refused(formed, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    text = (formed.folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(text.replace('"form": "cpu"', '"form": "gpu"'))
    with pytest.raises(UsageError, match="'form' must be 'cpu', not 'gpu'"):
        open_bundle(folder)


def test_what_needs_the_graphs_as_exported_refuses_it(formed, tmp_path, chain_inputs):
    new = tmp_path / "new"
    options = BuildOptions("tensorrt-rtx", "sm_89")
    images = {"images": tmp_path, "masks": tmp_path, "work": tmp_path}
    for wanted, call in {
        "float16 is made from": lambda: export_float16(formed, new, None, 1),
        "a checkpoint is made from": lambda: checkpoint_from_bundle(formed, tmp_path / "new.safetensors"),
        "engines are built from": lambda: build_engines(formed, options, "1.7", ""),
        "engines are": lambda: engine_request(formed, STAGES[0], options, tmp_path / "e"),
        "another occluder is given to": lambda: add_occluder(formed, tmp_path / "occluder", new, chain_inputs),
        "INT8 is made from": lambda: calibrate(Settings(formed.folder, new, **images)),
        "it is made once, from": lambda: export_cpu_form(formed, new),
    }.items():
        with pytest.raises(UsageError, match=f"is a CPU form; {wanted}.* the bundle that it came"):
            call()
    assert not new.exists()
    assert not (formed.folder / "engines").exists()


def test_a_stage_that_computes_something_else_is_not_kept(narrow_bundle, tmp_path, monkeypatch):
    real = cpu_bundle.cpu_form

    def wrong(data):
        model = real(data)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("detail.head.conv.bias") or tensor.name.endswith("_rows_bias"):
                values = onnx.numpy_helper.to_array(tensor) + np.float32(1e-3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(cpu_bundle, "cpu_form", wrong)
    with pytest.raises(ShowfaceError, match=r"stage \w+: its CPU form differs by .* \(at most 1e-05\), nothing"):
        export_cpu_form(open_bundle(narrow_bundle), tmp_path / "form", 1)
    assert not list(tmp_path.iterdir())


def run(*arguments):
    """Return the exit code of ``showface export``."""
    with pytest.raises(SystemExit) as ended:
        main(["--threads", "1", "export", *map(str, arguments)])
    return ended.value.code


def test_command_line(narrow_bundle, narrow_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))
    assert run(narrow_bundle, tmp_path / "form", "--cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"largest difference from {narrow_bundle}: coarse ")
    assert open_bundle(tmp_path / "form").manifest.form == "cpu"
    for arguments, error in (
        ([narrow_checkpoint, "out"], "is none; export it to one without --cpu first"),
        (["nowhere", "out"], "nowhere: cannot be read"),
        ([narrow_bundle, narrow_checkpoint / "out"], "cannot be written: Not a directory"),
        ([narrow_bundle, "out.onnx"], "--cpu makes a bundle; name a folder"),
        ([narrow_bundle, "out", "--precision", "fp16"], "--precision: does nothing here"),
    ):
        assert run(*arguments, "--cpu") == 2
        assert error in " ".join(capsys.readouterr().err.split())
