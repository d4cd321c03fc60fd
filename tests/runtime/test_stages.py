"""The stage table: every variant is a closed chain of known tensors."""

import pytest

from showface.runtime.stages import CATEGORIES, CHAIN_INPUTS, CHAIN_OUTPUT, STAGES, TENSORS, VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_chain_is_closed(variant):
    known = set(CHAIN_INPUTS)
    for stage in VARIANTS[variant]:
        assert set(stage.inputs) <= known, stage.name
        assert not set(stage.outputs) & known, stage.name
        known |= set(stage.outputs)
    assert CHAIN_OUTPUT in known
    assert known <= set(TENSORS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_is_used(variant):
    used = {name for stage in VARIANTS[variant] for name in stage.inputs} | {CHAIN_OUTPUT}
    if variant != "no-memory":  # there the parser's labels are the result of the stage, not an input
        assert {name for stage in VARIANTS[variant] for name in stage.outputs} <= used


@pytest.mark.parametrize("variant", VARIANTS)
def test_stage_names_are_unique(variant):
    names = [stage.name for stage in VARIANTS[variant]]
    assert len(set(names)) == len(names)
    assert set(names) <= {stage.name for stage in STAGES}


def test_tensors_are_keyed_by_their_name():
    assert all(name == tensor.name for name, tensor in TENSORS.items())
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 14


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("image", (2, 3, 256, 256)),
        ("mask", (2, 1, 256, 256)),
        ("coarse_image", (2, 3, 256, 256)),
        ("semantic_map", (2, 256, 256)),
        ("memory_codes", (2, 14, 64)),
        ("known_codes", (2, 14, 64)),
        ("guidance", (2, 64, 64, 64)),
        ("completed_image", (2, 3, 256, 256)),
    ],
)
def test_resolve(name, shape):
    assert TENSORS[name].resolve(2, 256, 64) == shape
