"""The plan's file: round trip, editing, and what it refuses."""

import pytest

from showface.calibration.planning.plan import INT8, Plan, read_plan
from showface.calibration.settings import Calibrator, Target
from showface.runtime.errors import UsageError

GROUPS = {"coarse": ["encoder.0", "to_rgb"], "mrem": ["mining.query", "(stage)"]}
PLAN = Plan(
    Target.CPU,
    Calibrator.PERCENTILE,
    {
        "coarse": {"encoder.0": INT8, "to_rgb": 'float: its error is "seen" as it is'},
        "mrem": {"mining.query": INT8, "(stage)": "float: k² / count"},
    },
    {"coarse": "99.9", "coarse/encoder.0": "99.99"},
)


def test_round_trip(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.to_toml(), encoding="utf-8")
    assert read_plan(tmp_path / "plan.toml", lambda target: GROUPS) == PLAN


def test_without():
    assert PLAN.quantized("coarse") == ["encoder.0"]
    plan = PLAN.without("coarse", "slow")
    assert plan.stages["coarse"] == {"encoder.0": "float: slow", "to_rgb": 'float: its error is "seen" as it is'}
    assert plan.stages["mrem"] == PLAN.stages["mrem"]


def test_what_is_not_named_stays_in_float(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('target = "cpu"\nmethod = "minmax"\n[coarse]\nto_rgb = "int8"\n')
    plan = read_plan(path, lambda target: GROUPS)
    assert plan.quantized("coarse") == ["to_rgb"]
    assert not plan.quantized("mrem")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target = ", "not a plan"),
        ('method = "minmax"', "the key 'target' is missing"),
        ('target = "npu"\nmethod = "minmax"', "not a plan: target is 'npu'; it must be one of cpu, tensorrt"),
        ('target = "cpu"\nmethod = [3]', r"method is \[3\]; it must be one of minmax, entropy, percentile"),
        ('target = "cpu"\nmethod = "minmax"\n[decoder]', "there is no stage 'decoder'; this bundle has coarse, mrem"),
        ('target = "cpu"\nmethod = "percentile"\n[settings]\ndecoder = "99.9"', "this bundle has coarse, mrem"),
        (
            'target = "cpu"\nmethod = "percentile"\n[settings]\n"coarse/encoder.9" = "99.9"',
            "gives a stage, or a layer group as 'stage/group', its setting",
        ),
        (
            'target = "cpu"\nmethod = "percentile"\n[settings]\n"coarse/encoder.0" = "99.9"',
            "has 'coarse/encoder.0'; give the setting of all of 'coarse' too",
        ),
        (
            'target = "cpu"\nmethod = "percentile"\n[settings]\ncoarse = "99"',
            """coarse = '99': percentile has "99.99", "99.95", "99.9", "99.7\"""",
        ),
        ('target = "cpu"\nmethod = "minmax"\n[settings]\ncoarse = "99.9"', "coarse = '99.9': minmax has \"minmax\""),
        (
            'target = "cpu"\nmethod = "minmax"\n[coarse]\n"encoder.9" = "int8"',
            "stage coarse has no layers 'encoder.9'; it has encoder.0, to_rgb",
        ),
        (
            'target = "cpu"\nmethod = "minmax"\n[coarse]\n"encoder.0" = "int4"',
            "'encoder.0' is 'int4'; write 'int8' or 'float: reason'",
        ),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_plan(path, lambda target: GROUPS)
