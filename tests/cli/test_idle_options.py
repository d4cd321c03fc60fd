"""Options that would change nothing beside the others are refused by their names, before anything is done."""

import pytest

EVALUATE = ("evaluate", "--images", "DIR", "--masks", "DIR", "--baseline", "telea")
OCCLUDER = ("evaluate", "occluder", "--labelled", "DIR")
CLEAN = ("evaluate", "occluder", "--clean", "DIR")
CALIBRATE = ("calibrate", "BUNDLE", "OUT", "--images", "DIR", "--masks", "DIR")
DIAGNOSE = ("diagnose", "FILE", "--images", "DIR", "--masks", "DIR")
IDLE = [
    (("export", "BUNDLE", "OUT.safetensors", "--precision", "fp16"), "--precision: does nothing here"),
    (("export", "BUNDLE", "OUT.safetensors", "--precision", "fp32"), "--precision: does nothing here"),
    (("export", "BUNDLE", "OUT.safetensors", "--occluder", "FILE"), "--occluder: does nothing here"),
    (
        ("export", "BUNDLE", "OUT.safetensors", "--images", "DIR", "--masks", "DIR"),
        "--images, --masks: do nothing here: OUT.safetensors gets the weights of the bundle as they are",
    ),
    (("export", "BUNDLE", "OUT.onnx", "--images", "DIR", "--masks", "DIR"), "--images, --masks: do nothing here"),
    (("export", "BUNDLE", "OUT", "--occluder", "FILE", "--precision", "fp16"), "--precision: does nothing here"),
    (("pack", "BUNDLE", "OUT.zip", "--max-batch", "8"), "--max-batch: does nothing here: without --triton"),
    (("pack", "BUNDLE", "OUT.zip", "--photo", "--queue-delay", "5"), "--queue-delay, --photo: do nothing here"),
    (("pack", "BUNDLE", "OUT", "--triton", "--overwrite"), "--overwrite: does nothing here"),
    (("pack", "BUNDLE", "OUT", "--triton", "--no-graphs"), "--no-graphs: does nothing here"),
    (("pack", "BUNDLE", "OUT", "--triton", "--target", "sm_86"), "--target: does nothing here: only --backend"),
    (("validate", "--from", "FILE", "--device", "cpu"), "--device: does nothing here: --from judges what was measured"),
    (("validate", "--from", "FILE", "--images", "DIR"), "--images: does nothing here: --from judges what was measured"),
    (("validate", "BUNDLE", "--from", "FILE"), "BUNDLE: --from judges what was measured"),
    (("validate", "BUNDLE", "--no-generated"), "--no-generated: does nothing here: a bundle is compared with its own"),
    (("validate", "BUNDLE", "--reference-device", "cpu"), "--reference-device: does nothing here"),
    (("validate", "BUNDLE", "--reference", "BUNDLE", "--no-generated", "--max-batch", "2"), "--max-batch: does"),
    (("validate", "FILE", "--reference", "BUNDLE", "--cuda-graph"), "--cuda-graph: CUDA graphs are for a bundle"),
    ((*CALIBRATE, "--plan", "FILE", "--method", "minmax"), "--method: does nothing here: the method and"),
    ((*DIAGNOSE, "--holdout-every", "5"), "--holdout-every: does nothing here: no parser is measured"),
    ((*EVALUATE, "--device", "cpu"), "--device: does nothing here: what is measured runs no network"),
    (("evaluate", "--limit", "3", "occluder", "--clean", "DIR"), "--limit: does nothing here: put the options of"),
    ((*OCCLUDER, "--without", "FILE"), "--without: does nothing here: there is no --clean"),
    ((*OCCLUDER, "--config", "FILE"), "--config: does nothing here: there is no --clean"),
    ((*CLEAN, "--pictures", "DIR"), "--pictures: does nothing here: there is no --labelled"),
    ((*CLEAN, "--limit", "3"), "--limit: does nothing here: nothing is completed end to end without --config"),
]


@pytest.mark.parametrize(("arguments", "said"), IDLE, ids=[" ".join(arguments) for arguments, _ in IDLE])
def test_an_option_that_would_do_nothing_is_refused(arguments, said, showface, narrow_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BUNDLE").symlink_to(narrow_bundle)
    (tmp_path / "DIR").mkdir()
    (tmp_path / "FILE").touch()
    done = showface(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {"BUNDLE", "DIR", "FILE"}
