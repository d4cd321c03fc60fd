"""The Fréchet distance against scipy and closed forms."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from showface.runtime.errors import UsageError
from showface.training.frechet import Statistics, frechet_distance, merge, statistics


def rows(seed, count=40, size=6):
    rng = np.random.default_rng(seed)
    return rng.normal(3, 2, (count, size)) @ rng.normal(0, 1, (size, size))


def test_batches_merge_to_numpys_mean_and_covariance():
    data = (rows(0) + 1000).astype(np.float32)
    merged = statistics(data[:1])
    for start, stop in ((1, 2), (2, 10), (10, 33), (33, 40)):
        merged = merge(merged, statistics(data[start:stop]))
    assert merged.count == 40
    assert merged.covariance.dtype == np.float64
    np.testing.assert_allclose(merged.mean, data.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(data.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-9)


def test_distance_equals_scipys_matrix_root():
    a, b = rows(0), rows(1)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert expected > 1
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-9)


def test_closed_form_of_diagonal_gaussians():
    rng = np.random.default_rng(2)
    means, deviations = rng.normal(size=(2, 5)), rng.uniform(0.1, 3, (2, 5))
    a, b = (Statistics(m, np.diag(s**2), 100) for m, s in zip(means, deviations, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_images_than_features():
    """Singular covariances that share a basis: the closed form holds, and a general matrix root is inaccurate."""
    basis = ortho_group.rvs(60, random_state=3)
    deviations = np.zeros((2, 60))
    deviations[0, :9], deviations[1, 4:11] = np.arange(1, 10), np.arange(7, 14) / 2
    a, b = (Statistics(np.zeros(60), basis @ np.diag(s**2) @ basis.T, 12) for s in deviations)
    assert frechet_distance(a, b) == pytest.approx(((deviations[0] - deviations[1]) ** 2).sum(), rel=1e-9)


def test_equal_and_constant_features():
    same = statistics(rows(4))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-9)
    constant = [statistics(np.full((3, 4), value)) for value in (1.0, 3.0)]
    assert frechet_distance(*constant) == pytest.approx(16)


def test_useless_statistics_are_refused():
    good = statistics(rows(0))
    with pytest.raises(UsageError, match="two images"):
        frechet_distance(good, statistics(rows(1)[:1]))
    with pytest.raises(UsageError, match="length 6 and 5"):
        frechet_distance(good, statistics(rows(1)[:, :5]))
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(good, statistics(np.full((3, 6), np.nan)))
