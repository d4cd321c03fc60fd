"""Settings of layer groups: each group of a costly stage gets the ranges under which its picture is best."""

from dataclasses import replace

import pytest

from showface.calibration.placement import tensor_groups
from showface.calibration.planning.candidates import Workshop
from showface.calibration.planning.choosing import choose_settings
from showface.calibration.planning.plan import INT8, Plan
from showface.calibration.planning.search import Budget
from showface.calibration.settings import Calibrator, Target
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import open_bundle

GROUP = "encoder.1"  # of the coarse stage
STRICT = Budget(psnr_drop=1e-3, hole_psnr=80.0)  # that the stage uses much of


@pytest.fixture(scope="module")
def good(made, narrow_bundle):
    stage = open_bundle(narrow_bundle).manifest.stages[0]
    return made(stage, Target.CPU)[1]


@pytest.fixture(scope="module")
def owned(graphs):
    return [tensor for tensor, group in tensor_groups(graphs["coarse"], "coarse", Target.CPU).items() if group == GROUP]


@pytest.fixture(scope="module")
def shop(graphs, made, good, owned, narrow_bundle):
    """Return a workshop with two settings of the coarse stage: one is bad in one group, the other in all others."""
    stages = open_bundle(narrow_bundle).manifest.stages
    wide = {name: (200 * low, 200 * high) if name in owned else (low, high) for name, (low, high) in good.items()}
    clipped = {name: (low, high) if name in owned else (low / 20, high / 20) for name, (low, high) in good.items()}
    ranges = {s.name: {"minmax": made(s, Target.CPU)[1]} for s in stages}
    sessions = {s.name: open_session(graphs[s.name].SerializeToString(), s, None, 1) for s in stages}
    options = {"99.99": wide, "99.9": clipped}
    return Workshop(tuple(stages), graphs, {**ranges, "coarse": options}, Target.CPU, sessions, 1)


@pytest.fixture(scope="module")
def plan(shop):
    named = {s: dict.fromkeys(groups, INT8 if s == "coarse" else "float: no") for s, groups in shop.groups().items()}
    return Plan(Target.CPU, Calibrator.PERCENTILE, named)


def test_a_group_that_the_setting_of_its_stage_spoils_gets_another(shop, plan, three, good, owned):
    assert owned
    chosen = choose_settings(shop, plan, three, STRICT)
    used = chosen.used_ranges("coarse")
    assert chosen.settings()["coarse"] == "99.99"
    assert chosen.exceptions["coarse"][GROUP] == "99.9"
    assert [used[tensor] for tensor in owned] == [good[tensor] for tensor in owned]
    assert chosen.chosen(Calibrator.PERCENTILE)[f"coarse/{GROUP}"] == "99.9"


def test_a_stage_that_costs_little_has_one_setting(shop, plan, three):
    assert not choose_settings(shop, plan, three, Budget(100.0, 0.0, 0.0)).exceptions


def test_settings_that_a_plan_names_stand(shop, plan, three):
    given = replace(plan, settings={"coarse": "99.9", f"coarse/{GROUP}": "99.99"})
    chosen = choose_settings(shop, given, three, STRICT)
    assert chosen.settings()["coarse"] == "99.9"
    assert chosen.exceptions == {"coarse": {GROUP: "99.99"}}
