"""Sensitivity, plan and gate on models that are made bad on purpose."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, load_from_string, numpy_helper

from showface.calibration.pace import Pace
from showface.calibration.placement import layer_of
from showface.calibration.planning import search as planning
from showface.calibration.planning.candidates import Workshop, stage_ranges
from showface.calibration.planning.choosing import choose_settings
from showface.calibration.planning.plan import INT8, Plan
from showface.calibration.planning.quality import Quality
from showface.calibration.planning.search import (
    BUDGET_MARGIN,
    Budget,
    Ranking,
    choose_groups,
    cost_of,
    gains_of,
    hold_on_others,
    new_plan,
    spread_over_buckets,
)
from showface.calibration.planning.sensitivity import Sensitivity, probe_all
from showface.calibration.planning.speed import Timing
from showface.calibration.planning.trials import Trials
from showface.calibration.planning.verdicts import gate_quality, judge_quality, judge_speed, speed_text
from showface.calibration.settings import Calibrator, Target
from showface.evaluation.faces import BUCKETS
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError

OUTLIER = "encoder.conv2"  # of the stage memory; it reads the planted channel


def shop_of(graphs, stages, ranges):
    sessions = {s.name: open_session(graphs[s.name].SerializeToString(), s, None, 1) for s in stages}
    return Workshop(tuple(stages), graphs, ranges, Target.CPU, sessions, 1)


@pytest.fixture(scope="module")
def shop(graphs, made, narrow_bundle):
    stages = open_bundle(narrow_bundle).manifest.stages
    return shop_of(graphs, stages, {s.name: {"minmax": made(s, Target.CPU)[1]} for s in stages})


def plan_of(shop, *stages):
    return Plan(
        Target.CPU,
        Calibrator.MINMAX,
        {s: dict.fromkeys(g, INT8 if s in stages else "float: no") for s, g in shop.groups().items()},
    )


def scaled(graph, name, index, factor):
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[index] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def enlarge_first_channel(graph, layer, operator, factor):
    """Multiply the first channel of what ``operator`` of ``layer`` takes, in a copy: layers share equal constants."""
    node = next(node for node in graph.graph.node if layer_of(node) == layer and node.op_type == operator)
    tensor = next(t for t in graph.graph.initializer if t.name == node.input[1])
    copy = numpy_helper.from_array(numpy_helper.to_array(tensor), f"{node.name}_enlarged")
    graph.graph.initializer.append(copy)
    node.input[1] = copy.name
    scaled(graph, copy.name, 0, factor)


@pytest.fixture(scope="module")
def planted(graphs, three, shop, narrow_bundle):
    """Return a workshop whose style encoder has one huge channel behind a normalisation; the next layer scales it back.

    The float function is the same (a leaky rectifier lets a positive factor through), the range is not.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(graphs["memory"])
    for operator in ("Mul", "Add"):  # of the normalisation, by a weight and with a bias for each channel
        enlarge_first_channel(graph, "encoder.norm1", operator, 1000.0)
    scaled(graph, "encoder.conv2.weight", (slice(None), 0), 1e-3)
    stages = open_bundle(narrow_bundle).manifest.stages
    memory = next(stage for stage in stages if stage.name == "memory")
    found = stage_ranges(graph, memory, three, Target.CPU, Calibrator.MINMAX, 1)
    return shop_of({**graphs, "memory": graph}, stages, {**shop.ranges, "memory": found})


def planned(shop, full, found, faces, budget):
    """Return the plan that the faces themselves ask for."""
    ranking = Ranking.of(full, found, budget)
    return ranking.leaving(choose_groups(Trials(shop, faces), ranking, budget))


def test_a_planted_outlier_is_found(planted, recorded):
    faces, full = list(recorded)[:2], plan_of(planted, "memory")
    found = probe_all(planted, full, faces)
    groups = {item.group: item for item in found if item.group is not None}
    assert set(groups) == set(planted.groups()["memory"])
    ranked = sorted(groups.values(), key=lambda item: -item.hole_error)
    assert ranked[0].group == OUTLIER
    assert ranked[0].hole_error > 4 * ranked[1].hole_error
    whole = next(item for item in found if item.group is None)
    budget = Budget(psnr_drop=10.0, hole_psnr=(whole.hole_psnr + ranked[1].hole_psnr) / 2, labels=0.0)
    plan = planned(planted, full, found, faces, budget)
    left = {group for group, precision in plan.stages["memory"].items() if precision != INT8}
    assert left
    assert left <= {OUTLIER, ranked[1].group}
    reasons = [plan.stages["memory"][group] for group in left]
    assert all(
        re.match(r"float: .* dB in the hole \(at least .*; alone .* dB in the hole", reason) for reason in reasons
    )
    assert not budget.violated(judge_quality(planted.open(plan), faces, budget).quality)


def test_a_stage_of_which_a_group_was_not_probed_is_one(planted, recorded):
    """As where the time is up after some groups: the stage with the outlier goes back to float, all of it."""
    faces, full = list(recorded)[:2], plan_of(planted, "memory", "mrem")
    found = probe_all(planted, full, faces, quick=True)
    assert [(item.stage, item.group) for item in found] == [("memory", None), ("mrem", None)]
    bad, good = sorted(item.hole_psnr for item in found)
    budget = Budget(psnr_drop=10.0, hole_psnr=(good + bad) / 2, labels=0.0)
    plan = planned(planted, full, found, faces, budget)
    assert (plan.quantized("memory"), plan.quantized("mrem")) == ([], full.quantized("mrem"))
    one_group = probe_all(planted, plan_of(planted, "mrem"), faces)[1:2]
    assert planned(planted, full, [*found, *one_group], faces, budget).stages == plan.stages


def test_the_better_setting_is_chosen(shop, recorded):
    clipped = {tensor: (low / 20, high / 20) for tensor, (low, high) in shop.ranges["mrem"]["minmax"].items()}
    shop = replace(shop, ranges={**shop.ranges, "mrem": {"clipped": clipped, **shop.ranges["mrem"]}})
    faces, unchanged, plan = list(recorded)[:2], shop.settings(), plan_of(shop, "coarse", "mrem")
    chosen = choose_settings(shop, plan, faces, Budget())
    assert (unchanged["mrem"], chosen.settings()["mrem"]) == ("clipped", "minmax")
    assert chosen.settings()["coarse"] == "minmax"  # there was no choice
    given = choose_settings(shop, replace(plan, settings={"mrem": "clipped"}), faces, Budget())
    assert given.settings()["mrem"] == "clipped"


def test_a_plan_keeps_a_margin_of_the_budget():
    """A share of what may be lost: decibels of error power, not of the figure, and labels lost, not kept."""
    tight = Budget(psnr_drop=0.1, hole_psnr=34.0, labels=0.98).tightened(0.8)
    assert tight.psnr_drop == pytest.approx(0.1 * 0.8)
    assert tight.hole_psnr == pytest.approx(34.0 - 10 * np.log10(0.8))
    assert 1 - tight.labels == pytest.approx(0.02 * 0.8)
    assert Budget(psnr_drop=-1.0).tightened(0.8).psnr_drop < -1.0  # a gain that is asked for grows


def test_a_plan_that_fails_on_other_faces_leaves_more_in_float(planted, recorded, caplog):
    """The plan quantises the planted outlier; the other faces ask for the next in rank, which it is, and no more."""
    faces, full = list(recorded)[:2], plan_of(planted, "memory", "mrem")
    found = probe_all(planted, full, faces)
    ranking = Ranking.of(full, found, Budget(psnr_drop=10.0, hole_psnr=40.0, labels=0.0))
    assert ranking.order[0] == ("memory", OUTLIER)
    without = ranking.leaving(ranking.order[:1])
    bad, good = (judge_quality(planted.open(plan), faces, Budget()).quality.hole_psnr for plan in (full, without))
    budget = Budget(psnr_drop=10.0, hole_psnr=(good + bad) / 2, labels=0.0)
    caplog.set_level("DEBUG", "showface")
    plan = hold_on_others(Trials(planted, faces), ranking, {}, budget)
    assert plan.quantized("memory") == without.quantized("memory")
    assert plan.quantized("mrem") == full.quantized("mrem")
    assert "dB in the hole (at least" in plan.stages["memory"][OUTLIER]
    assert any("on faces that it was not made on" in text for text in caplog.messages)
    assert hold_on_others(Trials(planted, faces), ranking, ranking.order[:1], budget).quantized(
        "mrem"
    ) == full.quantized("mrem")


def figures(psnr_drop, hole_psnr, labels):
    return Quality({"1-20": {"float_psnr": 30.0, "psnr": 30.0 - psnr_drop}}, hole_psnr, hole_psnr, labels, 0.0)


def test_broken_bounds_are_lowered_in_proportion():
    """Other faces lost twice the decibels: the next plan may lose half on its own, less the margin."""
    budget = Budget(psnr_drop=0.1, hole_psnr=34.0, labels=0.98)
    allowed = budget.tightened(BUDGET_MARGIN)
    lowered = budget.lowered(allowed, figures(0.08, 40.0, 0.99), figures(0.2, 37.0, 0.96))
    assert lowered.psnr_drop == pytest.approx(BUDGET_MARGIN * 0.1 * 0.08 / 0.2)
    assert lowered.hole_psnr == allowed.hole_psnr  # it held
    assert 1 - lowered.labels == pytest.approx(BUDGET_MARGIN * 0.02 * 0.01 / 0.04)
    assert budget.lowered(allowed, figures(-0.01, 40.0, 1.0), figures(0.2, 40.0, 1.0)).psnr_drop == 0.0
    errors = budget.lowered(allowed, figures(0.0, 36.0, 1.0), figures(0.0, 33.0, 1.0))
    assert errors.hole_psnr == pytest.approx(
        34.0 + 3.0 - 10 * np.log10(BUDGET_MARGIN)
    )  # 3 dB more error, 3 dB less allowed


class Judge:
    """Trials whose verdict depends on how many groups are in float; those that were asked are kept."""

    def __init__(self, groups, needed):
        self.groups, self.needed, self.asked = groups, needed, []

    def judge(self, plan):
        left = self.groups - sum(len(plan.quantized(stage)) for stage in plan.stages)
        self.asked.append(left)
        return figures(0.2 if left < self.needed else 0.05, 60.0, 1.0)


def test_what_the_plan_left_in_float_keeps_its_reason(shop):
    full = plan_of(shop, "mrem")
    keys = [("mrem", group) for group in full.quantized("mrem")]
    ranking = Ranking.of(full, [Sensitivity(*key, 0.01, 50.0, 1e-5, 0.0, 1.0, 1) for key in keys], Budget())
    plan = hold_on_others(Judge(len(keys), 2), ranking, {keys[0]: "its own faces"}, Budget())
    reasons = [reason for reason in plan.stages["mrem"].values() if reason != INT8]
    assert sorted(reason.split(";")[0] for reason in reasons)[1] == "float: its own faces"
    assert sorted(reasons)[0].startswith(
        "float: PSNR falls by 0.200 dB (at most 0.1) on faces that judge; alone +0.010 dB"
    )


def test_where_the_time_is_up_the_search_ends_with_what_was_tried(shop, monkeypatch):
    full = plan_of(shop, "parser", "memory", "mrem")
    keys = [(stage, group) for stage in shop.groups() for group in full.quantized(stage)]
    ranking = Ranking.of(full, [Sensitivity(*key, 0.01, 50.0, 1e-5, 0.0, 1.0, 1) for key in keys], Budget())
    judge, pace = Judge(len(keys), 9), Pace(1.0)
    monkeypatch.setattr(planning, "pace", lambda: pace)
    monkeypatch.setattr(Pace, "late", property(lambda self: len(judge.asked) > 4))
    plan = hold_on_others(judge, ranking, {}, Budget())
    assert sum(len(plan.quantized(stage)) for stage in plan.stages) == len(keys) - 9
    judge.asked.extend(range(9))  # late from the beginning
    assert hold_on_others(judge, ranking, {keys[0]: ""}, Budget()) == ranking.leaving({keys[0]: ""})


@pytest.mark.parametrize(
    ("needed", "asked"), [(0, [0]), (1, [0, 1]), (5, [0, 1, 2, 4, 8, 6, 5]), (7, [0, 1, 2, 4, 8, 6, 7])]
)
def test_as_few_groups_as_the_other_faces_need(shop, needed, asked):
    """Doubling goes too far, halving comes back; what breaks no bound stays in 8 bits, costly as it is."""
    full = plan_of(shop, "parser", "memory", "mrem")
    keys = [(stage, group) for stage in shop.groups() for group in full.quantized(stage)]
    found = [Sensitivity(s, g, 0.01, 50.0, 1e-5, 0.5 if s == "mrem" else 0.0, 1.0, 1) for s, g in keys]
    found = [replace(item, psnr_drop=0.0) if item.stage == "mrem" else item for item in found]
    ranking, judge = Ranking.of(full, found, Budget()), Judge(len(keys), needed)
    assert ranking.order[0][0] == "mrem"
    plan = hold_on_others(judge, ranking, {}, Budget())
    assert judge.asked == asked
    reasons = [reason for groups in plan.stages.values() for reason in groups.values()]
    assert sum("PSNR falls by 0.200 dB" in reason for reason in reasons) == needed
    assert plan.quantized("mrem") == full.quantized("mrem")


def test_a_plan_that_fails_on_other_faces_is_made_anew_of_less(shop, recorded, monkeypatch):
    """Once; what then still fails leaves more groups in float."""
    asked, judge = [], Judge(len(shop.groups()["mrem"]), 1)
    monkeypatch.setattr(planning, "probe_all", lambda *arguments: [Sensitivity("mrem", None, 0, 60.0, 0, 0, 1.0, 1)])
    monkeypatch.setattr(planning, "full_plan", lambda shop, method: plan_of(shop, "mrem"))
    monkeypatch.setattr(planning, "choose_groups", lambda trials, ranking, budget: asked.append(budget) or {})
    trials = iter([Trials(shop, list(recorded)[:1]), judge])
    monkeypatch.setattr(planning, "Trials", lambda shop, faces: next(trials))
    plan, _ = new_plan(shop, Calibrator.MINMAX, list(recorded)[:3], [], Budget())
    assert asked[0] == Budget().tightened(BUDGET_MARGIN)
    assert asked[1].psnr_drop < asked[0].psnr_drop / 2
    assert asked[1].hole_psnr == asked[0].hole_psnr
    assert judge.asked == [0, 0]
    assert not plan.quantized("mrem")


def test_a_stage_that_is_slower_in_8_bits_stays_in_float(shop, recorded, monkeypatch, caplog):
    slow = Sensitivity("mrem", None, 0.0, 99.0, 0.0, 0.0, -1.25, 1)
    fast = Sensitivity("memory", None, 0.0, 99.0, 0.0, 0.0, 1.0, 1)
    monkeypatch.setattr(planning, "probe_all", lambda *arguments: [slow, fast])
    monkeypatch.setattr(planning, "full_plan", lambda shop, method: plan_of(shop, "memory", "mrem"))
    caplog.set_level("INFO", "showface")
    faces = list(recorded)[:3]
    plan, _ = new_plan(shop, Calibrator.MINMAX, faces, faces, Budget(10.0, 0.0, 0.0), quick=True)
    assert (bool(plan.quantized("memory")), plan.quantized("mrem")) == (True, [])
    assert "stage mrem: INT8 is slower here by 1.2 ms, left in float" in caplog.messages


def test_weights_count_beside_time(shop):
    """Of two groups that cost as much and save as little time, the one with few weights is left in float first."""
    constants = {tensor.name: tensor.dims for tensor in shop.graphs["memory"].graph.initializer}
    layers = ["encoder.conv3", "encoder.conv1"]  # of 1×1 and of 3×3 taps
    few, many = (int(np.prod(constants[f"{layer}.weight"])) for layer in layers)
    assert few < many
    assert [shop.weights("memory", [group]) for group in layers] == [few, many]
    assert shop.weights("memory", layers) == few + many

    found = [Sensitivity("memory", None, 0.02, 50.0, 1e-5, 0.0, 0.2, few + many)]
    found += [Sensitivity("memory", name, 0.01, 50.0, 1e-5, 0.0, 0.1, w) for name, w in (("few", few), ("many", many))]
    gains = gains_of(found[1:])
    assert sum(gains.values()) == pytest.approx(2.0)  # all of the time, and all of the weights
    costs = {item.group: cost_of(item, gains["memory", item.group], Budget()) for item in found[1:]}
    assert costs["few"] > costs["many"] > 0


def test_as_many_faces_of_each_bucket(recorded):
    spread = spread_over_buckets(iter(recorded), 6)
    assert Counter(item.face.bucket for item in spread) == dict.fromkeys(BUCKETS, 2)
    assert [item.face.name for item in spread_over_buckets(recorded, 3)] == [
        next(item.face.name for item in recorded if item.face.bucket == bucket) for bucket in BUCKETS
    ]


def test_the_gate_fails_a_bad_stage(planted, recorded, caplog):
    faces = list(recorded)[:2]
    caplog.set_level("INFO", "showface")
    plan = plan_of(planted, "memory", "mrem")
    good = judge_quality(planted.open(plan.without("memory", "")), faces, Budget()).quality.hole_psnr
    bad = judge_quality(planted.open(plan), faces, Budget()).quality.hole_psnr
    assert good > bad
    kept, verdict = gate_quality(planted, plan, faces, Budget(10.0, (good + bad) / 2, 0.0))
    assert verdict.passed
    assert not kept.quantized("memory")
    assert kept.quantized("mrem") == plan.quantized("mrem")
    said = [text for text in caplog.messages if not text.startswith("judging")]
    assert said[0].startswith("stage memory failed the budget, left in float: ")
    assert all("failed the budget" in text for text in kept.stages["memory"].values())


def test_a_budget_that_float_itself_fails(shop, recorded):
    with pytest.raises(ShowfaceError, match="cannot be met, not even in float"):
        planned(shop, plan_of(shop, "mrem"), [], list(recorded)[:1], Budget(-1.0))


def test_speed_is_measured_stage_by_stage(shop, recorded, monkeypatch):
    monkeypatch.setattr("showface.calibration.planning.verdicts.ROUNDS", {1: 1, 8: 1})
    speed = judge_speed(shop, plan_of(shop, "mrem"), list(recorded)[:1])
    assert set(speed) == {1, 8}
    assert set(speed[1]) == {"mrem", "chain"}
    assert all(timing.float_ms > 0 and timing.int8_ms > 0 for timing in speed[1].values())
    assert "× FP32 at batch 1" in speed_text(speed)
    assert speed[1]["chain"].float_ms > speed[1]["mrem"].float_ms


def test_slower_is_said():
    assert "INT8 is slower here, do not use it" in speed_text({1: {"chain": Timing(1.0, 1.2, 0.83)}})
    assert speed_text({}).startswith("not measured: engines run on a GPU")


def test_weights_behind_casts_are_folded(float_graphs, recorded, narrow_bundle):
    """The stored graph casts float16 weights; the folded one has none and computes the same, bit for bit."""
    bundle = open_bundle(narrow_bundle)
    stage = bundle.manifest.stages[-1]  # of the first one, normalisations are folded too
    stored = load_from_string(bundle.model(stage))
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in stored.graph.initializer)
    face = next(iter(recorded))
    for data in (bundle.model(stage), float_graphs[Target.TENSORRT][stage.name].SerializeToString()):
        outputs = open_session(data, stage, None, 1).run({name: face.tensors[name] for name in stage.inputs})
        np.testing.assert_array_equal(outputs["completed_image"], face.tensors["completed_image"])
