"""``showface validate`` as a user runs it: pairs of sources, saved outputs between processes, judging again."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from showface.cli import main
from showface.runtime.stages import STAGES

NAMES = [stage.name for stage in STAGES]


@pytest.fixture
def call(capsys):
    """Return a function that runs the command line in this process: exit code, standard output and error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["--threads", "2", *map(str, arguments)])
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


def test_the_golden_file_proves_a_bundle_and_the_json_keeps_its_keys(call, narrow_bundle, tmp_path):
    code, out, err = call("validate", narrow_bundle, "--device", "cpu", "--json", tmp_path / "a.json")
    assert code == 0, err
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["passed"] is True
    assert list(result["stages"]) == NAMES
    for figures in (*result["stages"].values(), result["chain"]):
        assert {"max_abs", "mean_abs", "agreement", "passed"} <= set(figures)
    assert "passed" in out
    assert result["candidate"]["environment"]["backend"].startswith("ONNX Runtime")


def test_a_result_is_judged_again_and_fails_under_tighter_bounds(call, narrow_bundle, tmp_path):
    first = tmp_path / "a.json"
    assert call("validate", narrow_bundle, "--device", "cpu", "--json", first)[0] == 0
    again = ("validate", "--from", first)
    assert call(*again)[0] == 0
    code, out, _ = call(*again, "--max-abs", "1e-12", "--json", tmp_path / "b.json")
    assert code == 1
    assert "at most 1e-12 is allowed" in out
    assert json.loads((tmp_path / "b.json").read_text())["tolerances"]["coarse"]["max_abs"] == 1e-12
    assert call("validate", "--from", tmp_path / "b.json", "--tolerance", "float32")[0] == 0
    code, _, err = call("validate", narrow_bundle, "--from", first)
    assert (code, "--from judges" in err) == (2, True)


def test_a_checkpoint_is_a_reference_and_a_planted_fault_is_named(
    call, narrow_bundle, narrow_checkpoint, face_folder, tmp_path
):
    import shutil

    import onnx
    from onnx import numpy_helper

    images, masks = face_folder
    folder = tmp_path / "faulty"
    shutil.copytree(narrow_bundle, folder)
    proto = onnx.load(folder / "refiner.onnx")
    bias = next(i for i in proto.graph.initializer if i.name == "body.spade4.shared.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    data = proto.SerializeToString()
    (folder / "refiner.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["refiner.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    options = ("--images", images, "--masks", masks, "--limit", 2, "--no-generated", "--device", "cpu")
    code, out, err = call("validate", narrow_bundle, "--checkpoint", narrow_checkpoint, *options)
    assert code == 0, out + err
    report = tmp_path / "report"
    code, out, _ = call("validate", folder, "--checkpoint", narrow_checkpoint, *options, "--report", report)
    assert code == 1
    assert "the error jumps in refiner.body.spade4.shared" in out
    result = json.loads((report / "results.json").read_text())
    assert [name for name in NAMES if not result["stages"][name]["passed"]] == ["refiner"]
    assert result["attribution"][0]["module"] == "refiner.body.spade4.shared"
    code, _, err = call("validate", folder, "--report", report)
    assert (code, "exists already" in err) == (2, True)


def test_outputs_saved_by_one_process_are_compared_in_another(call, narrow_bundle, narrow_checkpoint, tmp_path):
    saved = tmp_path / "workstation"
    command = [
        sys.executable, "-m", "showface.cli", "--threads", "2", "validate", narrow_bundle, "--checkpoint",
        narrow_checkpoint, "--limit", "1", "--no-generated", "--device", "cpu", "--save-reference", saved,
    ]  # fmt: skip
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    json_file = tmp_path / "device.json"
    device = ("validate", narrow_bundle, "--reference", saved, "--device", "cpu", "--save-outputs", tmp_path / "device")
    code, out, err = call(*device, "--json", json_file)
    assert code == 0, out + err
    result = json.loads(json_file.read_text())
    assert list(result["stages"]) == NAMES
    assert result["reference"]["description"].startswith("PyTorch")
    code, out, err = call("validate", tmp_path / "device", "--reference", saved)
    assert code == 0, out + err
    code, _, err = call(*device)
    assert (code, "exists already" in err) == (2, True)
    (saved / "00000.npz").write_bytes(b"junk")
    code, _, err = call("validate", narrow_bundle, "--reference", saved, "--device", "cpu")
    assert (code, "00000.npz: its hash differs" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{bundle}", "--reference", "x", "--checkpoint", "y"), "name the same side"),
        (("{bundle}", "--images", "faces"), "need a checkpoint or another reference"),
        (("{checkpoint}",), "name a reference that it shall equal"),
        (("{bundle}", "--limit", "1"), "need a checkpoint or another reference"),
        (
            ("{checkpoint}", "--device", "cuda:0", "--reference", "{bundle}"),
            "--backend: backend and device",
        ),
        (
            ("{bundle}", "--checkpoint", "{checkpoint}", "--reference-device", "cuda:0"),
            "--reference-backend: ",
        ),
        (("{bundle}", "--reference", "nowhere"), "no bundle here"),
        (("{bundle}", "--tolerance", "bfloat16"), "bfloat16"),
        (("--from", "nowhere.json"), "nowhere.json"),
        (("{bundle}", "--json", "no/such/folder.json"), "there is no folder"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(call, arguments, words, narrow_bundle, narrow_checkpoint):
    places = {"bundle": narrow_bundle, "checkpoint": narrow_checkpoint}
    code, _, err = call("validate", *(argument.format(**places) for argument in arguments))
    assert code == 2
    assert words in err
    assert "Traceback" not in err
