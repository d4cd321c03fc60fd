"""Engines with two profiles: a single face runs in the one, batches run in the other, each in contexts of its own."""

import numpy as np
import pytest

from showface.runtime.backends.tensorrt.engine import Graphs
from showface.runtime.errors import UsageError


@pytest.fixture
def rig(make_rig, make_quick):
    return make_quick(make_rig(compute=lambda inputs: {}, profiles=2))


@pytest.mark.parametrize("graphs", [Graphs.OFF, Graphs.CAPTURE])
def test_each_batch_runs_in_its_profile(rig, batch_of, expected, graphs):
    with rig.open(cuda_graph=graphs) as chain:
        assert chain.sizes == (1, 2, 4)
        for count in (1, 2, 5, 1, 11):
            image, mask = batch_of(count)
            np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        ran = [(context.profile, set(context.batches_run)) for context in rig.engines["mrem"].contexts]
    one_a_profile = [(0, {1}), (1, {2, 4})]
    one_a_batch = [(0, {1}), (1, {2}), (1, {4})]
    assert ran == 2 * (one_a_profile if graphs is Graphs.OFF else one_a_batch)
    assert rig.cuda.leaks() == []


def test_a_single_face_needs_no_context_of_the_other_profile(rig, batch_of, expected):
    image, mask = batch_of(3)
    with rig.open(batch_limit=1) as chain:
        assert [context.profile for context in rig.engines["coarse"].contexts] == [0, 0]
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))


def test_where_contexts_cannot_share_a_profile_the_slots_share_two(rig, batch_of, expected, caplog):
    for engine in rig.engines.values():
        engine.shares_profiles = False
    image, mask = batch_of(6)
    with rig.open() as chain:
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        np.testing.assert_array_equal(chain.complete(image[:1], mask[:1]), expected(image[:1], mask[:1]))
    assert "contexts cannot share a profile" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"profiles": 1}, "the number of its profiles is 2, its sidecar says 1"),
        ({"profiles": 3}, r"'profiles' is 3 for the batches \[1, 2, 4\]"),
        ({"batches": [2, 2, 4]}, r"'profiles' is 2 for the batches \[2, 2, 4\]"),
        ({"batches": [1, 4, 4]}, r"its profile of image is .*, its sidecar says \(2, 4, 4\); rebuild with"),
    ],
)
def test_a_sidecar_that_tells_of_others_is_refused(rig, changes, said):
    rig.edit_sidecar("coarse", **changes)
    with pytest.raises(UsageError, match=said):
        rig.open()
