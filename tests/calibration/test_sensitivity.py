"""Sensitivity, plan and gate on models that are made bad on purpose."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, load_from_string, numpy_helper

from showface.calibration.graphs import float_graph
from showface.calibration.placement import Target
from showface.calibration.plan import INT8, Plan
from showface.calibration.planning import Budget, make_plan
from showface.calibration.ranges import Method
from showface.calibration.sensitivity import probe_all
from showface.calibration.speed import Timing
from showface.calibration.verdicts import gate_quality, judge_quality, judge_speed, speed_text
from showface.calibration.workshop import Workshop, stage_ranges
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.onnxruntime_backend import open_session

OUTLIER = "decode2.spade1"  # a layer group of the refiner


def shop_of(graphs, recorded, stages, ranges=None):
    found = ranges or {s.name: stage_ranges(graphs[s.name], s, recorded, Target.CPU, Method.MINMAX, 1) for s in stages}
    sessions = {s.name: open_session(graphs[s.name].SerializeToString(), s, None, 1) for s in stages}
    return Workshop(tuple(stages), graphs, found, Target.CPU, sessions, 1)


@pytest.fixture(scope="module")
def shop(graphs, recorded, narrow_bundle):
    return shop_of(graphs, recorded, open_bundle(narrow_bundle).manifest.stages)


def plan_of(shop, *stages):
    return Plan(
        Target.CPU,
        Method.MINMAX,
        {s: dict.fromkeys(g, INT8 if s in stages else "float: no") for s, g in shop.groups().items()},
    )


def scaled(graph, name, index, factor):
    tensor = next(t for t in graph.graph.initializer if t.name == f"{OUTLIER}.{name}")
    values = numpy_helper.to_array(tensor).copy()
    values[index] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@pytest.fixture(scope="module")
def planted(graphs, recorded, shop, narrow_bundle):
    """Return a workshop whose refiner has one huge channel between two layers, which the second scales back.

    The float function is the same (a rectifier lets a positive factor through), the range is not.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(graphs["refiner"])
    scaled(graph, "shared.weight", 0, 1000.0)
    scaled(graph, "shared.bias", 0, 1000.0)
    scaled(graph, "modulation.weight", (slice(None), 0), 1e-3)
    stages = open_bundle(narrow_bundle).manifest.stages
    found = stage_ranges(graph, stages[-1], recorded, Target.CPU, Method.MINMAX, 1)
    return shop_of({**graphs, "refiner": graph}, recorded, stages, {**shop.ranges, "refiner": found})


def test_a_planted_outlier_is_found(planted, recorded):
    faces = list(recorded)[:3]
    found = probe_all(planted, plan_of(planted, "refiner"), faces, lambda text: None)
    groups = {item.group: item for item in found if item.group is not None}
    assert set(groups) == set(planted.groups()["refiner"])
    worst = max(groups.values(), key=lambda item: item.hole_error)
    assert worst.group == OUTLIER
    others = [item.hole_error for item in groups.values() if item.group != OUTLIER]
    assert worst.hole_error > 4 * max(others)
    whole = next(item for item in found if item.group is None)
    assert whole.hole_error > max(others)
    budget = Budget(psnr_drop=10.0, hole_psnr=(whole.hole_psnr + worst.hole_psnr) / 2 + 3, labels=0.0)
    plan = make_plan(planted, plan_of(planted, "refiner"), found, faces, budget, lambda text: None)
    assert plan.stages["refiner"][OUTLIER].startswith("float: ")
    assert "dB in the hole" in plan.stages["refiner"][OUTLIER]
    assert plan.quantized("refiner")
    assert not budget.violated(judge_quality(planted.open(plan), faces, budget).quality)


def test_the_gate_fails_a_bad_stage(planted, recorded):
    faces, said = list(recorded)[:3], []
    plan = plan_of(planted, "mrem", "refiner")
    good = judge_quality(planted.open(plan.without("refiner", "")), faces, Budget()).quality.hole_psnr
    bad = judge_quality(planted.open(plan), faces, Budget()).quality.hole_psnr
    assert good > bad
    kept, verdict = gate_quality(planted, plan, faces, Budget(10.0, (good + bad) / 2, 0.0), said.append)
    assert verdict.passed
    assert not kept.quantized("refiner")
    assert kept.quantized("mrem") == plan.quantized("mrem")
    assert said[0].startswith("stage refiner failed the budget, left in float: ")
    assert all("failed the budget" in text for text in kept.stages["refiner"].values())


def test_a_budget_that_float_itself_fails(shop, recorded):
    with pytest.raises(ShowfaceError, match="cannot be met, not even in float"):
        make_plan(shop, plan_of(shop, "mrem"), [], list(recorded)[:1], Budget(-1.0), lambda text: None)


def test_speed_is_measured_stage_by_stage(shop, recorded):
    speed = judge_speed(shop, plan_of(shop, "mrem"), list(recorded)[:1])
    assert set(speed) == {1, 8}
    assert set(speed[1]) == {"mrem", "chain"}
    assert all(timing.float_ms > 0 and timing.int8_ms > 0 for timing in speed[1].values())
    assert "× FP32 at batch 1" in speed_text(speed)


def test_slower_is_said():
    assert "INT8 is slower here, do not use it" in speed_text({1: {"chain": Timing(1.0, 1.2, 0.83)}})
    assert speed_text({}).startswith("not measured: engines run on a GPU")


def test_weights_behind_casts_are_quantised(graphs, narrow_bundle, shop):
    """The stored graph has float16 weights and casts where the checkpoint is rounded; folding keeps every value."""
    bundle = open_bundle(narrow_bundle)
    stage = bundle.manifest.stages[0]
    model = load_from_string(bundle.model(stage))
    name = "encoder.1.conv.conv.weight"
    tensor = next(t for t in model.graph.initializer if t.name == name)
    half = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(half, "half"))
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], [name], to=TensorProto.FLOAT))
    folded = float_graph(model.SerializeToString(), stage.name)
    found = next(t for t in folded.graph.initializer if t.name == name)
    np.testing.assert_array_equal(numpy_helper.to_array(found), half.astype(np.float32))
    assert all(node.op_type != "Cast" for node in folded.graph.node[:1])
