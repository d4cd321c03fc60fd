"""The table of tolerances, the verdict over stored figures, and judging again."""

import itertools
import json

import pytest

from showface.evaluation.parity.compare import read_result
from showface.evaluation.parity.tolerances import (
    TOLERANCES,
    failures_of,
    judge,
    override,
    plan_tolerances,
    real_flips,
    stored_tolerances,
    tolerance_of,
)
from showface.runtime.errors import UsageError
from showface.runtime.stages import CODES

FLOAT = {
    "kind": "float", "images": 2, "worst_image": "b", "mismatch": "", "nan": 0, "inf": 0, "max_abs": 5e-5,
    "p999_abs": 1e-5, "p99_abs": 1e-5, "mean_abs": 1e-6, "relative": 1e-6, "cosine": 1.0, "snr_db": 100.0,
    "histogram": [], "worst_images": {"not_finite": "n", "max_abs": "b", "p99_abs": "p"},
}  # fmt: skip
LABELS = {
    "kind": "labels", "images": 2, "worst_image": "a", "mismatch": "", "agreement": 1.0, "flips": 0, "alien": 0,
    "largest_flipped_margin": 0.0, "flipped_margins": [0] * 46, "iou": {},
    "worst_images": {"agreement": "a", "alien": "x", "margin": "m"},
}  # fmt: skip


def result(**changes):
    """Return the measured figures of a chain of one stage; ``changes`` go to its float tensor."""
    tensors = {"coarse_image": {**FLOAT, **changes}}
    view = {"max_abs": 5e-5, "mean_abs": 1e-6, "agreement": 1.0, "tensors": tensors}
    side = {"precision": {"coarse": "float32"}}
    return {
        "schema_version": 1, "images": 2, "cases": 2, "reference": side, "candidate": side,
        "stages": {"coarse": view}, "chain": {**view, "psnr_db": None},
    }  # fmt: skip


def test_every_row_is_looser_than_the_one_before():
    rows = list(TOLERANCES.values())
    assert list(TOLERANCES) == ["float32", "tf32", "float16", "int8"]
    for strict, loose in itertools.pairwise(rows):
        assert loose.max_abs >= strict.max_abs * strict.code_max_factor
        assert loose.p99_abs >= strict.p99_abs * strict.code_p99_factor
        assert loose.tie_margin >= strict.tie_margin
        assert loose.min_agreement <= strict.min_agreement
        assert loose.min_psnr_db <= strict.min_psnr_db
    assert tolerance_of("fp16") == TOLERANCES["float16"]
    with pytest.raises(UsageError, match="'bfloat16'"):
        tolerance_of("bfloat16")


def test_each_stage_has_the_row_of_its_precision_and_the_chain_the_loosest():
    precision = {"coarse": "int8", "parser": "float32", "refiner": "float16"}
    plan = plan_tolerances(precision, None, {"max_abs": 0.5, "tie_margin": None})
    assert plan["parser"].max_abs == plan["chain"].max_abs == 0.5
    assert plan["parser"].tie_margin == TOLERANCES["float32"].tie_margin
    assert plan["chain"].tie_margin == TOLERANCES["int8"].tie_margin
    assert set(plan_tolerances(precision, "tf32", {}).values()) == {TOLERANCES["tf32"]}


def test_codes_have_wider_bounds_in_float32_until_a_bound_is_named():
    figures = {"tensors": {name: {**FLOAT, "max_abs": 9e-4, "p99_abs": 4e-4} for name in (*CODES, "completed_image")}}
    failures = failures_of(figures, TOLERANCES["float32"])
    assert [text.split(":")[0] for text in failures] == ["completed_image"] * 2
    figures["tensors"]["guidance"]["max_abs"] = 1.1e-3
    failures = failures_of(figures, TOLERANCES["float32"])
    assert any("guidance: max_abs is 1.10e-03, at most 0.001 is allowed" in text for text in failures)
    named = override(TOLERANCES["float32"], {"max_abs": 5e-4, "p99_abs": None})
    failures = failures_of(figures, named)
    assert {text.split(":")[0] for text in failures if "max_abs" in text} == {*CODES, "completed_image"}
    assert [text.split(":")[0] for text in failures if "p99_abs" in text] == ["completed_image"]  # was not named


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"max_abs": 1.01e-4}, "max_abs is 1.01e-04, at most 0.0001 is allowed (b)"),
        ({"p99_abs": 6e-5}, "p99_abs"),
        ({"max_abs": float("nan")}, "max_abs"),
        ({"nan": 1, "max_abs": 0.0}, "1 nan values (n)"),
        ({"inf": 2, "nan": 1}, "1 nan and 2 inf"),
        ({"mismatch": "float64 (1,)"}, "float64 (1,)"),
    ],
)
def test_what_fails_a_float_tensor_is_said_in_words(changes, words):
    found = failures_of({"tensors": {"coarse_image": {**FLOAT, **changes}}}, TOLERANCES["float32"])
    assert (found == []) if words is None else (words in found[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"flips": 2, "agreement": 0.99995, "largest_flipped_margin": 9e-4}, None),
        ({"flips": 2, "agreement": 0.99995, "largest_flipped_margin": 2e-3}, "ties end at 0.001"),
        ({"flips": 1, "agreement": 0.99999, "largest_flipped_margin": None}, "does not tell by which lead"),
        ({"flips": 90, "agreement": 0.9998, "largest_flipped_margin": 0.0}, "agreement is 99.98"),
        ({"alien": 1, "flips": 0}, "no category"),
    ],
)
def test_what_fails_labels_is_said_in_words(changes, words):
    found = failures_of({"tensors": {"semantic_map": {**LABELS, **changes}}}, TOLERANCES["float32"])
    assert (found == []) if words is None else (words in found[0])


def test_a_low_psnr_in_the_hole_fails_the_chain():
    figures = {"tensors": {}, "psnr_db": 89.9, "psnr_image": "face"}
    assert "89.9 dB" in failures_of(figures, TOLERANCES["float32"])[0]
    assert failures_of({**figures, "psnr_db": None}, TOLERANCES["float32"]) == []


def test_real_flips_are_those_above_the_tie_margin():
    labels = {**LABELS, "flips": 5, "flipped_margins": [0] * 46, "largest_flipped_margin": 0.5}
    labels["flipped_margins"][2], labels["flipped_margins"][20], labels["flipped_margins"][30] = 2, 1, 2
    assert real_flips(labels, 1e-3) == 3  # bins 20 and above start at 1e-3
    assert real_flips(labels, 0.5) == 0
    assert real_flips({**labels, "largest_flipped_margin": None}, 1e-3) == 3


def test_a_result_is_judged_again_without_running_anything(tmp_path):
    first = judge(result(), plan_tolerances({"coarse": "float32"}, None, {}))
    assert first["passed"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(first))
    again = read_result(path)
    assert stored_tolerances(again) == {"coarse": TOLERANCES["float32"], "chain": TOLERANCES["float32"]}
    strict = plan_tolerances({"coarse": "float32"}, None, {"max_abs": 1e-5})
    judged = judge(again, strict)
    assert not judged["passed"]
    assert judged["tolerances"]["coarse"]["max_abs"] == 1e-5
    assert judged["stages"]["coarse"]["failures"]
    assert judge(judged, stored_tolerances(first))["passed"]


def test_a_comparison_of_no_image_proves_nothing():
    assert not judge({**result(), "images": 0}, plan_tolerances({"coarse": "float32"}, None, {}))["passed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the result"),
        ("[]", "not the result"),
        ('{"schema_version": "1"}', "schema_version"),
        ('{"schema_version": 99}', "newer"),
        ('{"schema_version": 1}', "candidate"),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(text, words, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match=r"missing\.json"):
        read_result(tmp_path / "missing.json")
