"""The stage table: every variant is a closed chain of known tensors."""

import pytest

from showface.runtime.stages import CATEGORIES, CHAIN_INPUTS, CHAIN_OUTPUT, LABELS, STAGES, TENSORS, VARIANTS


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
    unused = {name for stage in VARIANTS[variant] for name in stage.outputs} - used
    # Without memory no stage reads the labels: they are a result of their own.
    assert unused == ({LABELS} if variant == "no-memory" else set())


@pytest.mark.parametrize("variant", VARIANTS)
def test_stage_names_are_unique(variant):
    names = [stage.name for stage in VARIANTS[variant]]
    assert len(set(names)) == len(names)
    assert set(names) <= {stage.name for stage in STAGES}


def test_the_categories_are_14_and_the_labels_their_numbers():
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 14
    assert TENSORS[LABELS].dtype == "int32"


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
