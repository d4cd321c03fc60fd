"""Elu with clipped halves: bit by bit what the graph computed, and which sums stay."""

import numpy as np
import pytest
from fixtures.graphs import graph_of, operators, rewritten, run
from onnx import helper

from showface.export.cpu_form.elu import clip_elu


def elu(read="x", one=1.0):
    """Return max(x, 0) + (exp(-max(-``read``, 0)) - ``one``), as the networks write it."""
    steps = [
        ("Relu", ["x"], "above"),
        ("Identity", ["x"], "other"),
        ("Neg", [read], "n"),
        ("Relu", ["n"], "m"),
        ("Neg", ["m"], "below"),
        ("Exp", ["below"], "e"),
        ("Sub", ["e", "one"], "less"),
        ("Add", ["above", "less"], "y"),
    ]
    nodes = [helper.make_node(operator, inputs, [output], output) for operator, inputs, output in steps]
    return graph_of(nodes, {"x": ["b"], "y": ["b"]}, ["y"], one=np.float32(one))


def test_the_same_bits_and_the_values_of_elu():
    x = np.concatenate([np.linspace(-30, 30, 1001), [0.0, -0.0, 1e-30, -1e-30]]).astype(np.float32)
    model = elu()
    result = rewritten(model, clip_elu)
    assert operators(result) == ["Clip", "Clip", "Exp", "Sub", "Add"]
    found = run(result, x)[0]
    np.testing.assert_array_equal(found, run(model, x)[0])
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found, np.where(wide > 0, wide, np.expm1(wide)), atol=1e-6)


@pytest.mark.parametrize("changed", [{"one": 2.0}, {"read": "other"}], ids=str)
def test_other_sums_stay(changed):
    assert "Clip" not in operators(rewritten(elu(**changed), clip_elu))
