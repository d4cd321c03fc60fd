"""Equations 6-15 of the paper and the other losses against plain loops in numpy."""

from itertools import product

import numpy as np
import pytest
import torch
from fixtures.loss_inputs import SIDE, STRIDE, B, C, N, codes, hole, images, labels, maps, normal, parsed

from showface.training.losses import (
    discriminator_loss,
    generator_loss,
    gram_matrix,
    inter_coordination_loss,
    intra_coordination_loss,
    parsing_loss,
    perceptual_loss,
    reconstruction_loss,
    region_codes,
    semantic_loss,
    squared_error_loss,
    style_loss,
    total_loss,
    total_variation_loss,
)


def test_reconstruction_against_loops():
    ours, target = (x.numpy() for x in images())
    values = [abs(ours[i] - target[i]) for i in np.ndindex(ours.shape)]
    assert float(reconstruction_loss(*images())) == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_squared_error_against_loops():
    ours, target = (x.numpy() for x in images())
    values = [(ours[i] - target[i]) ** 2 for i in np.ndindex(ours.shape)]
    assert float(squared_error_loss(*images())) == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_region_codes_against_loops():
    features = normal(30, B, C, SIDE // STRIDE, SIDE // STRIDE)
    hidden, known = (code.numpy() for code in region_codes(features, labels(), hole(), N))
    for b, n in product(range(B), range(N)):
        for code, inside in ((hidden, 1), (known, 0)):
            values = [
                features[b, :, y // STRIDE, x // STRIDE].numpy()
                for y, x in product(range(SIDE), range(SIDE))
                if labels()[b, y, x] == n and hole()[b, 0, y, x] == inside
            ]
            if values:
                np.testing.assert_allclose(code[b, n], np.mean(values, axis=0), rtol=1e-12)
            else:
                assert not code[b, n].any()
    assert not hidden[:, N - 1].any()  # shown by no sample
    assert not hidden[2].any()  # nothing is hidden
    assert not known[3].any()  # nothing is known
    assert hidden[3, 0].any()


def test_region_of_one_pixel_has_the_code_of_its_cell():
    features = normal(31, 1, C, 2, 2)
    one = torch.zeros(1, SIDE, SIDE, dtype=torch.int32)
    one[0, 1, 6] = 1
    _, known = region_codes(features, one, torch.zeros(1, 1, SIDE, SIDE), 2)
    np.testing.assert_allclose(known[0, 1], features[0, :, 0, 1], rtol=1e-12)


def test_absent_regions_get_no_gradient_and_no_nan():
    features = normal(32, 1, C, 2, 2).float().requires_grad_()
    hidden, known = region_codes(features, torch.zeros(1, SIDE, SIDE).long(), torch.zeros(1, 1, SIDE, SIDE), N)
    coordination = inter_coordination_loss(hidden, known, hidden.detach(), known.detach())
    for loss in (hidden.sum(), coordination):
        assert not torch.autograd.grad(loss, features, retain_graph=True)[0].any()


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (16, 16)])
def test_grid_that_does_not_divide_the_labels_is_refused(shape):
    with pytest.raises(ValueError, match="cells"):
        region_codes(normal(33, B, C, *shape), labels(), hole(), N)


def similarity_distance(a, b, target_a, target_b):
    """Return the mean of |a·b - a'·b'| over samples and pairs of categories."""
    total = 0.0
    for s, i, j in product(range(B), range(N), range(N)):
        ours = sum(float(a[s, i, k]) * float(b[s, j, k]) for k in range(C))
        total += abs(ours - sum(float(target_a[s, i, k]) * float(target_b[s, j, k]) for k in range(C)))
    return total / (B * N * N)


def test_coordination_against_loops():
    hidden, known, target_hidden, target_known = codes()
    intra = similarity_distance(hidden, hidden, target_hidden, target_hidden)
    inter = similarity_distance(hidden, known, target_hidden, target_known)
    assert float(intra_coordination_loss(hidden, target_hidden)) == pytest.approx(intra, rel=1e-12)
    assert float(inter_coordination_loss(*codes())) == pytest.approx(inter, rel=1e-12)


def cross_entropy(logits, target):
    """Return the mean over pixels of -log softmax at ``target``, of arrays [B, n, H, W] and [B, H, W]."""
    values = []
    for b, y, x in np.ndindex(target.shape):
        odds = np.exp(logits[b, :, y, x])
        values.append(-np.log(odds[target[b, y, x]] / odds.sum()))
    return np.mean(values)


def test_semantic_against_loops():
    logits, target_logits, _ = parsed()
    expected = cross_entropy(logits.numpy(), target_logits.numpy().argmax(axis=1))
    assert float(semantic_loss(logits, target_logits)) == pytest.approx(expected, rel=1e-12)


def test_perceptual_against_loops():
    first, second, target_first, target_second = (x.numpy() for x in maps())
    expected = 0.0
    for ours, target in ((first, target_first), (second, target_second)):
        expected += sum(abs(ours[i] - target[i]) for i in np.ndindex(ours.shape)) / ours.size
    assert float(perceptual_loss(*[[*maps()[:2]], [*maps()[2:]]])) == pytest.approx(expected, rel=1e-12)


def gram_by_loops(x):
    b, c, h, w = x.shape
    gram = np.zeros((b, c, c))
    for s, i, j in np.ndindex(gram.shape):
        gram[s, i, j] = sum(x[s, i, y, z] * x[s, j, y, z] for y in range(h) for z in range(w)) / (c * h * w)
    return gram


def test_style_against_loops():
    grams = [gram_by_loops(x.numpy()) for x in maps()]
    for features, expected in zip(maps(), grams, strict=True):
        np.testing.assert_allclose(gram_matrix(features), expected, rtol=1e-12)
    expected = np.abs(grams[0] - grams[2]).mean() + np.abs(grams[1] - grams[3]).mean()
    assert float(style_loss([*maps()[:2]], [*maps()[2:]])) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [perceptual_loss, style_loss])
def test_a_missing_layer_is_refused(loss):
    with pytest.raises(ValueError, match="zip"):
        loss([*maps()[:2]], [maps()[2]])


def test_adversarial_against_numpy():
    real, fake = images()
    belief_real, belief_fake = (1 / (1 + np.exp(-x.numpy())) for x in images())
    expected = np.log(belief_real).mean() + np.log(1 - belief_fake).mean()  # eq. 13, which D maximises
    assert float(discriminator_loss(real, fake, "paper")) == pytest.approx(-expected, rel=1e-10)
    assert float(generator_loss(fake, "paper")) == pytest.approx(np.log(1 - belief_fake).mean(), rel=1e-10)
    margin = np.maximum(0, 1 - real.numpy()).mean() + np.maximum(0, 1 + fake.numpy()).mean()
    assert float(discriminator_loss(real, fake, "hinge")) == pytest.approx(margin, rel=1e-12)
    assert float(generator_loss(fake, "hinge")) == pytest.approx(-fake.numpy().mean(), rel=1e-12)


@pytest.mark.parametrize("kind", ["paper", "hinge"])
def test_adversarial_sides_pull_against_each_other(kind):
    real, fake = (torch.zeros(1, 1, 2, 2, requires_grad=True) for _ in range(2))
    discriminator_loss(real, fake, kind).backward()
    assert (real.grad < 0).all()  # descent raises the real logits
    assert (fake.grad > 0).all()
    fake.grad = None
    generator_loss(fake, kind).backward()
    assert (fake.grad < 0).all()


def test_unknown_adversarial_kind_is_refused():
    with pytest.raises(ValueError, match="'wgan'"):
        discriminator_loss(*images(), "wgan")
    with pytest.raises(ValueError, match="'wgan'"):
        generator_loss(images()[0], "wgan")


def test_total_variation_against_loops():
    image = images()[0][:, :, :, :5].numpy()
    down = [abs(image[b, c, y + 1, x] - image[b, c, y, x]) for b, c, y, x in np.ndindex(B, 3, SIDE - 1, 5)]
    right = [abs(image[b, c, y, x + 1] - image[b, c, y, x]) for b, c, y, x in np.ndindex(B, 3, SIDE, 4)]
    value = float(total_variation_loss(images()[0][:, :, :, :5]))
    assert value == pytest.approx(np.mean(down) + np.mean(right), rel=1e-12)
    assert total_variation_loss(torch.full((1, 3, 4, 4), 0.3)) == 0


def test_total_is_the_weighted_sum():
    terms = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(-3.0, requires_grad=True)}
    value = total_loss(terms, {"b": 0.5, "a": 10.0, "not asked for": 7.0})
    value.backward()
    assert value == 18.5
    assert (float(terms["a"].grad), float(terms["b"].grad)) == (10.0, 0.5)


def test_a_term_without_a_weight_is_refused():
    with pytest.raises(KeyError, match="'b'"):
        total_loss(dict.fromkeys("ab", torch.tensor(1.0)), {"a": 1.0})


def test_parsing_against_loops():
    logits, truth = parsed()[2].numpy(), labels().numpy()
    odds = np.exp(logits)
    probability = odds / odds.sum(axis=1, keepdims=True)
    dice = []
    for b in range(B):
        distances = []
        for n in range(N):
            inside = truth[b] == n
            if inside.any():
                overlap = probability[b, n][inside].sum()
                distances.append(1 - (2 * overlap + 1) / (probability[b, n].sum() + inside.sum() + 1))
        dice.append(np.mean(distances))
    expected = cross_entropy(logits, truth) + 0.7 * np.mean(dice)
    assert float(parsing_loss(parsed()[2], labels(), 0.7)) == pytest.approx(expected, rel=1e-12)


def test_parsing_of_a_perfect_map_is_zero():
    logits = 200.0 * torch.nn.functional.one_hot(labels(), N).permute(0, 3, 1, 2)
    assert float(parsing_loss(logits, labels(), 1.0)) == pytest.approx(0.0, abs=1e-6)
