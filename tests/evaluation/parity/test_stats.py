"""Each figure of parity against an independent computation."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from showface.evaluation.parity.accumulate import ComparedPicture, Gallery, TensorTally
from showface.evaluation.parity.stats import (
    ERROR_EDGES,
    FloatFigures,
    error_histogram,
    float_figures,
    hole_figures,
    label_figures,
)
from showface.evaluation.parity.tolerances import TOLERANCES, real_flips


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    reference = random.normal(size=(3, 40, 50)).astype(np.float32)
    return reference, reference + random.normal(0, 1e-3, reference.shape).astype(np.float32)


def test_the_figures_of_floats_are_those_of_numpy_and_scipy(pair):
    reference, candidate = pair
    figures = float_figures(reference, candidate)
    a, b = (array.astype(np.float64).ravel() for array in pair)
    error = np.sort(np.abs(a - b))
    assert (figures.nan, figures.inf) == (0, 0)
    assert figures.max_abs == error[-1]
    assert figures.mean_abs == pytest.approx(error.sum() / error.size, rel=1e-12)
    for share, value in ((0.99, figures.p99_abs), (0.999, figures.p999_abs)):
        position = share * (error.size - 1)  # linear interpolation between the two order statistics beside it
        low = int(position)
        expected = error[low] + (position - low) * (error[low + 1] - error[low])
        assert value == pytest.approx(expected, rel=1e-12)
    assert figures.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
    assert figures.cosine == pytest.approx(1 - cosine(a, b), rel=1e-12)
    assert figures.snr_db == pytest.approx(20 * np.log10(np.std(a) / np.std(b - a)), abs=1e-2)


def test_equal_tensors_and_zeros_have_figures_too():
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert float_figures(ones, ones) == FloatFigures()
    assert float_figures(zeros, zeros) == FloatFigures()
    lost = float_figures(zeros, ones)
    assert (lost.relative, lost.cosine, lost.snr_db) == (np.inf, 0.0, -np.inf)


def test_what_is_not_finite_is_counted_and_left_out(pair):
    reference, candidate = pair
    clean = float_figures(np.delete(reference.ravel(), [5, 7, 9]), np.delete(candidate.ravel(), [5, 7, 9]))
    reference.flat[5], candidate.flat[5] = np.nan, np.inf
    candidate.flat[7], reference.flat[9] = -np.inf, np.inf
    figures = float_figures(reference, candidate)
    assert (figures.nan, figures.inf) == (1, 2)
    assert figures.max_abs == clean.max_abs
    assert figures.p99_abs == clean.p99_abs
    empty = float_figures(np.full(3, np.nan), np.zeros(3))
    assert (empty.nan, empty.max_abs) == (3, 0.0)


def test_the_worse_of_two_images_stands():
    one = FloatFigures(0, 1, 1.0, 0.5, 0.4, 0.1, 0.2, 0.9, 20.0)
    two = FloatFigures(2, 1, 0.5, 0.6, 0.1, 0.2, 0.1, 0.95, 10.0)
    assert one.worst(two) == two.worst(one) == FloatFigures(2, 2, 1.0, 0.6, 0.4, 0.2, 0.2, 0.9, 10.0)


def test_the_histogram_of_errors_is_numpys_with_open_ends(pair):
    reference, candidate = pair
    candidate[0, 0, :3] = reference[0, 0, :3] + np.asarray([0, 1e6, np.nan], np.float32)
    error = np.abs(reference.astype(np.float64) - candidate)
    expected, _ = np.histogram(np.clip(error[np.isfinite(error)], ERROR_EDGES[0], ERROR_EDGES[-1]), ERROR_EDGES)
    np.testing.assert_array_equal(error_histogram(reference, candidate), expected)


def test_flipped_labels_are_counted_with_their_margins():
    reference = np.zeros((4, 5), np.int32)
    candidate, margin = reference.copy(), np.full((4, 5), 5.0, np.float32)
    candidate[0, :3] = (1, 2, 13)
    margin[0, :3] = (1e-4, 0.3, 1e-9)
    figures = label_figures(reference, candidate, margin)
    assert (figures.pixels, figures.flips, figures.alien) == (20, 3, 0)
    assert figures.largest_flipped_margin == pytest.approx(0.3)
    assert figures.flipped_margins.sum() == 3
    assert figures.confusion[0].tolist() == [17, 1, 1, *[0] * 10, 1]
    margin[0, 1] = np.nan
    for unknown in (margin, None):
        assert label_figures(reference, candidate, unknown).largest_flipped_margin == np.inf


def test_a_label_that_is_no_category_is_counted():
    reference = np.zeros((2, 2), np.int32)
    figures = label_figures(reference, np.asarray([[0, 14], [-1, 1]], np.int32), None)
    assert (figures.alien, figures.flips) == (2, 3)


def test_psnr_and_ssim_in_the_hole_are_those_of_scikit_image():
    random = np.random.default_rng(1)
    reference = random.uniform(-1, 1, (3, 48, 48)).astype(np.float32)
    candidate = reference + random.normal(0, 0.1, reference.shape).astype(np.float32)
    mask = np.zeros((1, 48, 48), np.float32)
    mask[0, 10:30, 2:20] = 1
    psnr, ssim = hole_figures(reference, candidate, mask)
    hole = mask[0] > 0
    inside = (array.astype(np.float64)[:, hole] for array in (reference, candidate))
    assert psnr == pytest.approx(peak_signal_noise_ratio(*inside, data_range=2), rel=1e-9)
    _, full = structural_similarity(
        reference.astype(np.float64), candidate.astype(np.float64), channel_axis=0, data_range=2, full=True,
        gaussian_weights=True, use_sample_covariance=False,
    )  # fmt: skip
    inner = np.zeros_like(hole)
    inner[5:-5, 5:-5] = hole[5:-5, 5:-5]
    assert ssim == pytest.approx(full[:, inner].mean(), rel=1e-6)
    assert hole_figures(reference, reference, mask) == (np.inf, pytest.approx(1.0))
    assert np.isnan(hole_figures(reference, candidate, np.zeros_like(mask))).all()


def test_a_tally_names_the_worst_image_and_puts_what_is_not_finite_first():
    tally = TensorTally("coarse_image")
    zeros = np.zeros((3, 8, 8), np.float32)
    for name, error in (("a", 0.1), ("b", 0.3), ("c", 0.2)):
        tally.add(name, zeros, zeros + np.float32(error))
    figures = tally.to_dict()
    assert (figures["worst_image"], figures["images"]) == ("b", 3)
    assert figures["max_abs"] == pytest.approx(0.3)
    broken = zeros.copy()
    broken[0, 0, 0] = np.nan
    tally.add("d", zeros, broken)
    tally.add("e", zeros, zeros + 1)
    assert (tally.to_dict()["worst_image"], tally.to_dict()["nan"]) == ("d", 1)


def test_each_figure_names_the_image_that_is_the_worst_of_it():
    tally, zeros = TensorTally("coarse_image"), np.zeros((3, 8, 8), np.float32)
    spike, broad = zeros.copy(), zeros + np.float32(0.1)
    spike[0, 0, 0] = 1.0
    tally.add("spike", zeros, spike)
    tally.add("broad", zeros, broad)
    for name, count in (("3", 3), ("also 3", 3), ("5", 5), ("4", 4)):
        broken = zeros.copy()
        broken.flat[:count] = np.nan
        tally.add(name, zeros, broken)
    figures = tally.to_dict()
    assert figures["worst_images"] == {"not_finite": "5", "max_abs": "spike", "p99_abs": "broad"}
    assert (figures["worst_image"], figures["nan"]) == ("5", 15)

    tally, labels = TensorTally("semantic_map"), np.zeros((8, 8), np.int32)
    ties, fault = labels.copy(), labels.copy()
    ties[:4], fault[0, 0] = 1, 1
    tally.add("ties", labels, ties, np.full((8, 8), 1e-6))
    tally.add("fault", labels, fault, np.full((8, 8), 0.5))
    assert tally.to_dict()["worst_images"] == {"agreement": "ties", "alien": "ties", "margin": "fault"}


def test_flips_at_the_tie_margins_of_the_table_are_counted_exactly():
    for tolerance in TOLERANCES.values():
        tally, labels = TensorTally("semantic_map"), np.zeros((1, 50), np.int32)
        margin = np.full((1, 50), 0.8 * tolerance.tie_margin)
        margin[0, 7] = 1.1 * tolerance.tie_margin
        tally.add("face", labels, labels + 1, margin)
        assert real_flips(tally.to_dict(), tolerance.tie_margin) == 1


def test_the_iou_of_labels_adds_up_over_images_and_is_unknown_where_a_category_is_absent():
    tally = TensorTally("semantic_map")
    reference = np.zeros((2, 4), np.int32)
    candidate = reference.copy()
    candidate[0, 0] = 1
    tally.add("a", reference, candidate)
    tally.add("b", reference + 1, reference + 1)
    figures = tally.to_dict()
    assert figures["iou"]["background"] == pytest.approx(7 / 8)
    assert figures["iou"]["skin"] == pytest.approx(8 / 9)
    assert figures["iou"]["hat"] is None
    assert (figures["agreement"], figures["flips"], figures["worst_image"]) == (7 / 8, 1, "a")
    assert figures["largest_flipped_margin"] is None  # not known


def test_another_shape_or_dtype_is_a_mismatch_that_names_both():
    for name, reference, other in (
        ("coarse_image", np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 5), np.float32)),
        ("coarse_image", np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float64)),
        ("semantic_map", np.zeros((4, 4), np.int32), np.zeros((4, 4), np.int64)),
    ):
        tally = TensorTally(name)
        tally.add("face", reference, other)
        assert str(other.shape) in tally.to_dict()["mismatch"]
        assert str(other.dtype) in tally.to_dict()["mismatch"]


def test_a_gallery_keeps_the_worst_pictures_only():
    gallery = Gallery()
    empty = np.zeros((1, 1, 1))
    for k, badness in enumerate((1.0, 5.0, 3.0, np.inf, 2.0, 5.0, 0.5)):
        gallery.offer(badness, ComparedPicture(str(k), empty, empty, empty, empty))
    assert [picture.name for picture in gallery.worst_first()] == ["3", "1", "5", "2"]
