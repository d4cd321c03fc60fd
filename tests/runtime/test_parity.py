"""The parity check catches what it should and lets ties pass; a batch changes no face."""

import numpy as np
import pytest

from showface.runtime.bundle import open_bundle
from showface.runtime.inpainter import Inpainter
from showface.runtime.onnxruntime_backend import open_chain
from showface.runtime.parity import TIE_MARGIN, Difference, check_parity, compare, compare_chain, golden_reference
from showface.runtime.session import Chain
from showface.runtime.stages import STAGES, Stage

SIDE = 256


@pytest.fixture(scope="module")
def narrow_chain(narrow_bundle):
    return open_chain(open_bundle(narrow_bundle), "cpu", 2)


@pytest.fixture
def one_face(narrow_bundle):
    """Return the reference of the first golden face, as writable copies."""
    return {name: tensor[:1].copy() for name, tensor in golden_reference(open_bundle(narrow_bundle)).items()}


def test_compare_gives_the_figures_that_numpy_gives():
    random = np.random.default_rng(0)
    reference = random.normal(size=(2, 3, 5)).astype(np.float32)
    candidate = reference + random.normal(0, 1e-3, reference.shape).astype(np.float32)
    error = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    difference = compare(reference, candidate)
    assert difference.max_abs == pytest.approx(error.max(), rel=1e-12)
    assert difference.mean_abs == pytest.approx(error.mean(), rel=1e-12)
    assert difference.agreement == 1.0
    assert not difference.passed


def test_the_bound_on_floats_is_one_in_ten_thousand():
    zeros = np.zeros(4, np.float32)
    assert compare(zeros, zeros + np.float32(0.99e-4)).passed
    assert not compare(zeros, zeros + np.float32(1.01e-4)).passed


def test_labels_are_compared_by_their_share_of_equals():
    reference = np.zeros(20000, np.int32)
    candidate = reference.copy()
    candidate[:2] = 1
    assert compare(reference, candidate) == Difference(0.0, 0.0, 1 - 2 / 20000)
    assert compare(reference, candidate).passed
    candidate[2] = 1
    assert not compare(reference, candidate).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [(0,), (1,), (0, 1)])
def test_a_value_that_is_no_number_fails_on_either_side(value, where):
    pair = [np.zeros(4, np.float32), np.zeros(4, np.float32)]
    for side in where:
        pair[side][1] = value
    assert not compare(*pair).passed
    for order in (compare(*pair).worst(Difference()), Difference().worst(compare(*pair))):
        assert not order.passed


def test_another_shape_or_dtype_fails():
    zeros = np.zeros((2, 3), np.float32)
    assert not compare(zeros, np.zeros((3, 2), np.float32)).passed
    assert not compare(zeros, np.zeros((1, 3), np.float32)).passed
    assert not compare(zeros, zeros.astype(np.float64)).passed
    assert not compare(zeros.astype(np.int32), zeros.astype(np.int64)).passed


def test_the_golden_file_proves_the_bundle(narrow_chain, narrow_bundle):
    report = check_parity(narrow_chain, [golden_reference(open_bundle(narrow_bundle))])
    assert report["passed"] is True
    assert list(report["stages"]) == [stage.name for stage in STAGES]


@pytest.mark.parametrize(
    ("tensor", "stage"),
    [
        ("coarse_image", "coarse"),
        ("memory_codes", "memory"),
        ("known_codes", "memory"),
        ("guidance", "mrem"),
        ("completed_image", "refiner"),
    ],
)
def test_a_disturbed_golden_tensor_fails_its_stage(narrow_chain, one_face, tensor, stage):
    one_face[tensor].flat[7] += 0.01
    report = check_parity(narrow_chain, [one_face])
    assert report["passed"] is False
    assert not report["stages"][stage]["passed"]


def test_disturbed_labels_fail_the_parser(narrow_chain, one_face):
    labels = one_face["semantic_map"]
    labels[0, :8] = (labels[0, :8] + 1) % 14
    report = check_parity(narrow_chain, [one_face])
    assert report["passed"] is False
    assert not report["stages"]["parser"]["passed"]


def test_one_bad_reference_among_good_ones_fails(narrow_chain, one_face):
    bad = {name: tensor.copy() for name, tensor in one_face.items()}
    bad["completed_image"].flat[0] = np.nan
    for references in ([one_face, bad], [bad, one_face]):
        report = check_parity(narrow_chain, references)
        assert report["passed"] is False
        assert np.isnan(report["chain"]["max_abs"])


class FakeSession:
    """A stage made of a plain function."""

    def __init__(self, name, inputs, output, function):
        self.stage, self.function = Stage(name, inputs, (output,)), function

    def run(self, inputs):
        return {self.stage.outputs[0]: self.function(*(inputs[name] for name in self.stage.inputs))}


def flipping_chain(flips, bias=0.0):
    """Return a chain that gives the first ``flips`` pixels label 1 instead of 0, and paints the labels."""

    def labels_of(image):
        labels = np.zeros((1, SIDE, SIDE), np.int32)
        labels.flat[:flips] = 1
        return labels

    def paint(image, mask, labels):
        return image + mask * labels[:, None].astype(np.float32) + np.float32(bias)

    sessions = [
        FakeSession("coarse", ("image", "mask"), "coarse_image", lambda image, mask: image),
        FakeSession("parser", ("coarse_image",), "semantic_map", labels_of),
        FakeSession("refiner", ("coarse_image", "mask", "semantic_map"), "completed_image", paint),
    ]
    return Chain(sessions, "fake")


def fake_reference(margin):
    reference = flipping_chain(0).run(
        {"image": np.zeros((1, 3, SIDE, SIDE), np.float32), "mask": np.ones((1, 1, SIDE, SIDE), np.float32)}
    )
    return {**reference, "semantic_margin": np.full((1, SIDE, SIDE), margin, np.float32)}


def test_a_label_that_flips_on_a_tie_passes_though_the_face_changes():
    figures = compare_chain(flipping_chain(3), fake_reference(TIE_MARGIN / 2))
    assert figures["passed"]
    assert (figures["flips"], figures["real_flips"]) == (3, 0)
    assert figures["max_abs"] == 0.0
    assert figures["own_labels_max_abs"] == 1.0
    assert figures["agreement"] == pytest.approx(1 - 3 / SIDE**2)
    assert figures["largest_flipped_margin"] == pytest.approx(TIE_MARGIN / 2)


def test_a_single_real_flip_fails():
    figures = compare_chain(flipping_chain(1), fake_reference(TIE_MARGIN * 2))
    assert not figures["passed"]
    assert (figures["flips"], figures["real_flips"]) == (1, 1)


def test_too_many_ties_fail():
    assert not compare_chain(flipping_chain(7), fake_reference(0.0))["passed"]


def test_a_margin_where_nothing_flips_does_not_matter():
    figures = compare_chain(flipping_chain(0), fake_reference(5.0))
    assert figures["passed"]
    assert figures["largest_flipped_margin"] == 0.0


def test_an_error_on_the_reference_s_own_labels_fails():
    report = check_parity(flipping_chain(0, bias=0.01), [fake_reference(1.0)])
    assert not report["passed"]
    assert report["stages"]["parser"]["passed"]
    assert not report["stages"]["refiner"]["passed"]
    assert not report["chain"]["passed"]


def test_flips_are_counted_over_all_references():
    report = check_parity(flipping_chain(2), [fake_reference(0.0), fake_reference(0.0)])
    assert report["passed"]
    assert report["chain"]["flips"] == 4


def test_a_batch_gives_each_face_as_it_is_alone(narrow_bundle, faces):
    inpainter = Inpainter.from_bundle(narrow_bundle, "cpu", 2)
    together = inpainter.complete_batch(faces)
    for (pixels, hole), completed in zip(faces, together, strict=True):
        assert np.array_equal(inpainter.complete(pixels, hole), completed)
        assert np.array_equal(completed[~hole], pixels[~hole])
        assert not np.array_equal(completed[hole], pixels[hole])
