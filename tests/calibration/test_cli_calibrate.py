"""``showface calibrate`` from end to end on the narrow bundle, and its refusals."""

import io
import re
from contextlib import redirect_stdout

import numpy as np
import pytest
from PIL import Image

from showface.calibration import placement
from showface.calibration.calibrate import Settings, calibrate
from showface.calibration.placement import FloatRule
from showface.calibration.planning import verdicts
from showface.calibration.planning.plan import read_plan
from showface.calibration.planning.search import Budget
from showface.calibration.ranges import settings_of
from showface.calibration.settings import Calibrator, Target
from showface.cli import main
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.inpainter import Inpainter


@pytest.fixture
def call(capsys):
    """Return a function that runs the command line in this process: exit code, output and error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["--threads", "1", *map(str, arguments)])
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err.replace("\n", " ")

    return run


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, narrow_bundle, folders):
    """Return the bundle of a replayed plan, the report, and what was printed.

    The narrow model's random weights meet no real budget: the plan quantises what costs little.
    """
    root = tmp_path_factory.mktemp("calibrated")
    plan = root / "edited.toml"
    plan.write_text('target = "cpu"\nmethod = "minmax"\n[mrem]\n"mining.query" = "int8"\n"mining.key" = "int8"\n')
    arguments = [
        "calibrate", narrow_bundle, root / "int8", "--images", folders[0], "--masks", folders[1], "--faces", "6",
        "--check-faces", "3", "--plan", plan, "--report", root / "report.html",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(verdicts, "ROUNDS", {1: 1, 8: 1})  # how fast it is, is not at stake
        with pytest.raises(SystemExit) as stopped:
            main(["--threads", "1", *map(str, arguments)])
    assert not stopped.value.code
    return root, printed.getvalue()


def test_writes_a_bundle_that_runs(calibrated, folders):
    root, printed = calibrated
    bundle = open_bundle(root / "int8")
    assert bundle.manifest.precision["mrem"] == "int8"
    assert bundle.manifest.precision["coarse"] == "float32"
    record = bundle.manifest.calibration
    assert record["method"] == "minmax"
    assert record["faces"] == 6
    assert re.fullmatch("[0-9a-f]{64}", record["data"])
    assert record["plan"]["mrem"]["mining.value"] == "float: not named in the plan"
    assert record["quality"]["passed"]
    assert set(record["speed"]) == {"1", "8"}
    face = np.asarray(Image.open(sorted(folders[0].iterdir())[0]))
    hole = np.zeros(face.shape[:2], bool)
    hole[10:30, 10:30] = True
    completed = Inpainter.from_bundle(root / "int8", "cpu", 1).complete(face, hole)
    assert (completed[~hole] == face[~hole]).all()
    assert "quality: passed" in printed
    assert re.search(r"speed: \d\.\d\d× FP32 at batch 1", printed)


def test_info_names_the_precision(calibrated, call):
    assert re.search(r"mrem +int8", call("info", calibrated[0] / "int8")[1])


def test_report_is_one_page(calibrated):
    page = (calibrated[0] / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert page.count("data:image/png;base64,") == 12  # worst, median and best face, four pictures each
    assert "mining.query" in page
    assert "Activation ranges" in page


def times_of(work):
    """Return when each shard and each file of ranges was written."""
    return {path: path.stat().st_mtime_ns for pattern in ("shard-*", "ranges-*") for path in work.rglob(pattern)}


def test_ranges_and_recording_are_used_again(calibrated, narrow_bundle, folders, call, monkeypatch):
    monkeypatch.setattr(verdicts, "ROUNDS", {1: 1, 8: 1})
    root, _ = calibrated
    work = root / "int8.work"
    before = times_of(work)
    code, _, said = call(
        "calibrate", narrow_bundle, root / "again", "--images", folders[0], "--masks", folders[1], "--faces", "6",
        "--check-faces", "3", "--plan", root / "int8/plan.toml", "--work", work,
    )  # fmt: skip
    assert code == 0, said
    assert before == times_of(work)
    assert (root / "again/mrem.onnx").read_bytes() == (root / "int8/mrem.onnx").read_bytes()


def test_refusals_leave_nothing(calibrated, narrow_bundle, folders, tmp_path, call):
    root, _ = calibrated
    out = tmp_path / "out"
    common = ("--images", folders[0], "--masks", folders[1])
    code, _, said = call("calibrate", root / "int8", out, *common)
    assert (code, "stage mrem: is quantised already; calibrate the float bundle" in said) == (2, True), said
    plan = tmp_path / "plan.toml"
    plan.write_text('target = "cpu"\nmethod = "minmax"\n[refiner]\n"decode9" = "int8"\n')
    code, _, said = call("calibrate", narrow_bundle, out, *common, "--plan", plan)
    assert (code, "stage refiner has no layers 'decode9'" in said) == (2, True), said
    code, _, said = call("calibrate", narrow_bundle, root / "int8", *common)
    assert (code, "exists already" in said) == (2, True), said
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_empty_masks(narrow_bundle, folders, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in folders[1].iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(masks / path.name)
    code, _, said = call(
        "calibrate", narrow_bundle, tmp_path / "out", "--images", folders[0], "--masks", masks, "--faces", "6",
        "--check-faces", "3",
    )  # fmt: skip
    assert (code, "all masks are empty" in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_a_plan_is_made_and_its_settings_are_kept(calibrated, narrow_bundle, folders, tmp_path, monkeypatch, caplog):
    """The whole way without ``--plan``, over two stages; of TensorRT's target, whose verdict asks for no time."""
    monkeypatch.setattr("showface.calibration.calibrate.QUICK_FACES", 6)
    rest = tuple(FloatRule(stage, "*", "not of this test") for stage in ("coarse", "parser", "refiner"))
    monkeypatch.setattr(placement, "FLOAT_RULES", (*placement.FLOAT_RULES, *rest))
    settings = Settings(
        narrow_bundle, tmp_path / "out", *folders, calibrated[0] / "int8.work", Calibrator.PERCENTILE, Target.TENSORRT,
        faces=6, check_faces=3, budget=Budget(psnr_drop=10.0, hole_psnr=0.0, labels=0.0), threads=1,
    )  # fmt: skip
    caplog.set_level("DEBUG", "showface")
    outcome = calibrate(settings)
    plan = outcome.plan
    groups = {stage: plan.quantized(stage) for stage in plan.stages if plan.quantized(stage)}
    assert set(groups) == {"memory", "mrem"}
    probed = {stage: [item.group for item in outcome.sensitivities if item.stage == stage] for stage in groups}
    assert probed == {stage: [None, *names] for stage, names in groups.items()}
    assert set(plan.settings.values()) <= set(settings_of(Calibrator.PERCENTILE))
    assert f"memory: percentile {plan.settings['memory']}" in caplog.messages
    assert open_bundle(tmp_path / "out").manifest.calibration["settings"] == dict(plan.settings)
    available = {stage: list(names) for stage, names in plan.stages.items()}
    assert read_plan(tmp_path / "out/plan.toml", lambda target: available) == plan


@pytest.mark.parametrize("late", [True, False], ids=["the time is up", "a few faces"])
def test_a_short_one_quantises_whole_stages(calibrated, narrow_bundle, folders, tmp_path, monkeypatch, caplog, late):
    """Where the time is up, before anything was probed, and with a few faces: in both there is a plan, and it holds."""
    if late:
        monkeypatch.setattr("showface.calibration.calibrate.QUICK_FACES", 6)
    rest = tuple(FloatRule(stage, "*", "not of this test") for stage in ("coarse", "parser", "refiner"))
    monkeypatch.setattr(placement, "FLOAT_RULES", (*placement.FLOAT_RULES, *rest))
    settings = Settings(
        narrow_bundle, tmp_path / "out", *folders, calibrated[0] / "int8.work", Calibrator.MINMAX, Target.TENSORRT,
        faces=6, check_faces=3, budget=Budget(psnr_drop=10.0, hole_psnr=0.0, labels=0.0), threads=1,
        max_minutes=1e-9 if late else None,
    )  # fmt: skip
    caplog.set_level("INFO", "showface")
    outcome = calibrate(settings)
    assert [(item.stage, item.group) for item in outcome.sensitivities] == [("memory", None), ("mrem", None)]
    assert all(outcome.plan.quantized(stage) for stage in ("memory", "mrem"))
    assert open_bundle(tmp_path / "out").manifest.precision["memory"] == "int8"
    assert sum("the time is up: 0 of" in text for text in caplog.messages) == late
    assert sum(text.startswith("6 faces: a try") for text in caplog.messages) == (not late)
    steps = [text for text in caplog.messages if "% of all" in text]
    assert [text.partition(":")[0] for text in steps][-2:] == ["probing", "judging"]
    shares = [int(text.partition(" %")[0].rpartition(" ")[2]) for text in steps]
    assert shares == sorted(shares)
    assert "left" not in steps[0]  # what was recorded before tells nothing of the speed, and nothing else was done


def test_nothing_left_to_quantise(calibrated, narrow_bundle, folders, tmp_path, caplog):
    """A budget that asks for a gain of 1 dB: no bundle, and the stage that failed is named."""
    work = calibrated[0] / "int8.work"
    caplog.set_level("INFO", "showface")
    settings = Settings(
        narrow_bundle, tmp_path / "out", *folders, work, faces=6, check_faces=3, budget=Budget(psnr_drop=-1.0),
        plan=calibrated[0] / "edited.toml", threads=1,
    )  # fmt: skip
    with pytest.raises(ShowfaceError, match="out: not written, no stage can be quantised within the budget"):
        calibrate(settings)
    assert any(
        text.startswith("stage mrem failed the budget, left in float: PSNR falls by") for text in caplog.messages
    )
    assert not list(tmp_path.iterdir())
