"""Loss functions of the paper (eqs 6-15); each is pure and returns a scalar.

Every loss is the mean over the samples of a value of each sample, so that the mean over two halves of
a batch is the loss of the whole. ``‖·‖₁`` of the paper is taken as a mean over the elements, so
that the weights λ do not depend on the image size. All are computed in float32, also under autocast;
float64 inputs stay float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialKind = Literal["paper", "hinge"]

LEAST_HOLE = 0.01  # share of the face; a smaller hole weighs no more


def _widen(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a × bᵀ for [B, n, k] and [B, m, k] in the precision of the inputs, which autocast would lower."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.transpose(1, 2)


def _mean_distance(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference of each sample, averaged under ``weights`` [B]."""
    return _weighted((_widen(a) - _widen(b)).abs(), weights)


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of ``values`` [B, ...]; each sample counts by its weight."""
    return values.mean() if weights is None else (values.flatten(1).mean(dim=1) * _widen(weights)).mean()


def _summed_distance(layers: Sequence[Tensor], target_layers: Sequence[Tensor]) -> Tensor:
    pairs = zip(layers, target_layers, strict=True)
    return torch.stack([_mean_distance(ours, target) for ours, target in pairs]).sum()


def hole_weights(mask: Tensor) -> Tensor:
    """Return weights [B] that turn a mean over a face into one over its hole.

    A mean over the whole face weighs a sample by its hole, which is sixty times as large in one as in another.

    Args:
        mask: [B, 1, H, W] in [0, 1], the hole's share of each pixel.
    """
    return 1.0 / _widen(mask).flatten(1).mean(dim=1).clamp(min=LEAST_HOLE)


def reconstruction_loss(completed: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_rec = ‖Î - I‖₁ over all pixels (eq. 10).

    Args:
        completed: Î [B, 3, H, W] in [-1, 1].
        target: I [B, 3, H, W] in [-1, 1].
        weights: [B], of the samples; the paper has none.
    """
    return _mean_distance(completed, target, weights)


def squared_error_loss(completed: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error over all pixels, which PSNR measures; not in the paper.

    Args:
        completed: Î [B, 3, H, W] in [-1, 1].
        target: I [B, 3, H, W] in [-1, 1].
        weights: [B], of the samples.
    """
    return _weighted((_widen(completed) - _widen(target)).square(), weights)


def region_codes(features: Tensor, labels: Tensor, mask: Tensor, categories: int) -> tuple[Tensor, Tensor]:
    """Average features over the hidden and over the known part of each category (paper Fig. 4).

    The share of a cell that belongs to a region is counted at the labels' full resolution.

    Args:
        features: [B, c, h, w]; H / h = W / w is a whole number.
        labels: [B, H, W], category of each pixel of the ground truth.
        mask: [B, 1, H, W], 1 in the hole, 0 elsewhere.
        categories: n.

    Returns:
        M over category ∩ hole and M̂ over category ∩ known, both [B, n, c]; the row of an absent
        region is zero.

    Raises:
        ValueError: the features' grid does not divide that of the labels.
    """
    (height, width), (rows, columns) = labels.shape[1:], features.shape[2:]
    stride = height // rows
    if (rows * stride, columns * stride) != (height, width):
        raise ValueError(f"labels of {height}×{width} do not fall into {rows}×{columns} equal square cells")
    features = _widen(features)
    mask = mask.to(features.dtype)
    index = torch.arange(categories, device=labels.device, dtype=labels.dtype)
    regions = (labels[:, None] == index[None, :, None, None]).to(features.dtype)

    def average(inside: Tensor) -> Tensor:
        share = F.avg_pool2d(regions * inside, stride).flatten(2)
        # One pixel is the smallest region, so the clamp only changes absent ones.
        area = share.sum(dim=2, keepdim=True).clamp(min=1.0 / stride**2)
        return _product(share / area, features.flatten(2))

    return average(mask), average(1.0 - mask)


def intra_coordination_loss(hidden: Tensor, target_hidden: Tensor) -> Tensor:
    """L_intra = ‖M(Î) M(Î)ᵀ - M(I) M(I)ᵀ‖₁, a mean over the n×n similarities (eq. 6).

    Args:
        hidden: M(Î) [B, n, c], codes of the completed face's regions in the hole.
        target_hidden: M(I) [B, n, c], the same of the ground truth.
    """
    hidden, target_hidden = _widen(hidden), _widen(target_hidden)
    return _mean_distance(_product(hidden, hidden), _product(target_hidden, target_hidden))


def inter_coordination_loss(hidden: Tensor, known: Tensor, target_hidden: Tensor, target_known: Tensor) -> Tensor:
    """L_inter = ‖M(Î) M̂(Î)ᵀ - M(I) M̂(I)ᵀ‖₁, a mean over the n×n similarities (eq. 7).

    Args:
        hidden: M(Î) [B, n, c], codes of the completed face's regions in the hole.
        known: M̂(Î) [B, n, c], codes of its regions outside the hole.
        target_hidden: M(I) [B, n, c].
        target_known: M̂(I) [B, n, c].
    """
    similarity = _product(_widen(hidden), _widen(known))
    return _mean_distance(similarity, _product(_widen(target_hidden), _widen(target_known)))


def semantic_loss(logits: Tensor, target_logits: Tensor) -> Tensor:
    """L_sem = CE(P(I), P(Î)), the ground truth's categories against the completed face's parse (eq. 9).

    Args:
        logits: P(Î) [B, n, H, W], the parser's logits of the completed face.
        target_logits: P(I) [B, n, H, W] of the ground truth; only their largest counts.
    """
    return F.cross_entropy(_widen(logits), target_logits.argmax(dim=1))


def perceptual_loss(features: Sequence[Tensor], target_features: Sequence[Tensor]) -> Tensor:
    """L_perc = Σᵢ ‖φᵢ(Î) - φᵢ(I)‖₁, a mean within each layer (eq. 11).

    Args:
        features: φᵢ(Î), one [B, c, h, w] a layer.
        target_features: φᵢ(I), the same of the ground truth.
    """
    return _summed_distance(features, target_features)


def relative_perceptual_loss(
    features: Sequence[Tensor], target_features: Sequence[Tensor], weights: Tensor | None = None
) -> Tensor:
    """L_perc with each layer divided by its own mean, so that all weigh the same; not in the paper.

    Args:
        features: φᵢ(Î), one [B, c, h, w] a layer.
        target_features: φᵢ(I), the same of the ground truth.
        weights: [B], of the samples.
    """
    terms = []
    for ours, target in zip(features, target_features, strict=True):
        size = _widen(target).abs().mean().clamp(min=1e-6)
        terms.append(_mean_distance(ours, target, weights) / size)
    return torch.stack(terms).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """Return G [B, c, c], the channels' inner products of ``features`` [B, c, h, w] divided by c·h·w."""
    flat = _widen(features).flatten(2)
    # Divided before the product, which would leave the range of lower precisions.
    return _product(flat / features[0].numel(), flat)


def style_loss(features: Sequence[Tensor], target_features: Sequence[Tensor]) -> Tensor:
    """L_style = Σᵢ ‖G(φᵢ(Î)) - G(φᵢ(I))‖₁, a mean within each layer (eq. 12).

    Args:
        features: φᵢ(Î), one [B, c, h, w] a layer.
        target_features: φᵢ(I), the same of the ground truth.
    """
    return _summed_distance([gram_matrix(x) for x in features], [gram_matrix(x) for x in target_features])


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: AdversarialKind) -> Tensor:
    """The discriminator's side of eq. 13, to be minimised; D = sigmoid of the logits.

    ``paper``: -(log D(I) + log(1 - D(Î))). ``hinge``: max(0, 1 - real) + max(0, 1 + fake) of the logits.

    Args:
        real_logits: [B, 1, h, w], of the ground truth.
        fake_logits: [B, 1, h, w], of the completed face, detached from the generator.
        kind: ``paper`` or ``hinge``.

    Raises:
        ValueError: another ``kind``.
    """
    real, fake = (_patch_losses(x, kind) for x in (real_logits, fake_logits))
    return real.taken_for_real.mean() + fake.taken_for_fake.mean()


def generator_loss(fake_logits: Tensor, kind: AdversarialKind) -> Tensor:
    """The generator's side of eq. 13, L_adv of eq. 15, to be minimised; it may be negative.

    ``paper``: log(1 - D(Î)), whose gradient fades where the discriminator is sure of a fake.
    ``hinge``: the negative logits, whose gradient does not.

    Args:
        fake_logits: [B, 1, h, w], of the completed face.
        kind: ``paper`` or ``hinge``.

    Raises:
        ValueError: another ``kind``.
    """
    return _generator_losses(fake_logits, kind).mean()


def patch_discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, holes: Tensor, photographs: Tensor, kind: AdversarialKind
) -> Tensor:
    """The discriminator's side of eq. 13 where patches without a hole are real, and only photographs are.

    Args:
        real_logits: [B, 1, h, w], of the ground truth.
        fake_logits: [B, 1, h, w], of the completed face, detached from the generator.
        holes: [B, 1, h, w] bool, patches that touch the hole.
        photographs: [B] bool, faces whose ground truth is real.
        kind: ``paper`` or ``hinge``.
    """
    real, fake = (_patch_losses(x, kind) for x in (real_logits, fake_logits))
    chosen = photographs.to(real.taken_for_real.dtype).reshape(-1, 1, 1, 1).expand_as(real.taken_for_real)
    truths = (real.taken_for_real * chosen).sum() / chosen.sum().clamp(min=1.0)
    known = ~holes & photographs.reshape(-1, 1, 1, 1)
    counted = (holes | known).to(truths.dtype)
    each = torch.where(holes, fake.taken_for_fake, fake.taken_for_real)
    return truths + (each * counted).sum() / counted.sum().clamp(min=1.0)


def patch_generator_loss(fake_logits: Tensor, holes: Tensor, kind: AdversarialKind) -> Tensor:
    """The generator's side of eq. 13 over the patches that touch the hole; each sample weighs the same.

    Args:
        fake_logits: [B, 1, h, w], of the completed face.
        holes: [B, 1, h, w] bool.
        kind: ``paper`` or ``hinge``.
    """
    each = _generator_losses(fake_logits, kind)
    inside = holes.to(each.dtype)
    return ((each * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp(min=1.0)).mean()


class _PatchLosses(NamedTuple):
    taken_for_real: Tensor
    taken_for_fake: Tensor


def _patch_losses(logits: Tensor, kind: AdversarialKind) -> _PatchLosses:
    """Return what each patch costs the discriminator if it is real, and if it is fake."""
    logits = _widen(logits)
    if kind == "paper":
        return _PatchLosses(-F.logsigmoid(logits), -F.logsigmoid(-logits))
    if kind == "hinge":
        return _PatchLosses(F.relu(1 - logits), F.relu(1 + logits))
    raise ValueError(f"unknown kind of adversarial loss {kind!r}")


def _generator_losses(logits: Tensor, kind: AdversarialKind) -> Tensor:
    """Return what each patch of a completed face costs the generator."""
    logits = _widen(logits)
    if kind == "paper":
        return F.logsigmoid(-logits)
    if kind == "hinge":
        return -logits
    raise ValueError(f"unknown kind of adversarial loss {kind!r}")


def total_variation_loss(image: Tensor) -> Tensor:
    """L_tv = ‖Î‖_tv, mean absolute differences of vertical plus of horizontal neighbours (eq. 14).

    Args:
        image: Î [B, 3, H, W] in [-1, 1]; H, W ≥ 2.
    """
    image = _widen(image)
    down = (image[:, :, 1:] - image[:, :, :-1]).abs().mean()
    return down + (image[:, :, :, 1:] - image[:, :, :, :-1]).abs().mean()


def total_loss(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """L_total = Σ λ · L over the terms (eq. 15).

    Args:
        terms: the losses by name, each a scalar; at least one.
        weights: λ of these names; those of others are left out.
    """
    return torch.stack([weights[name] * _widen(term) for name, term in terms.items()]).sum()


def parsing_loss(logits: Tensor, labels: Tensor, dice_weight: float) -> Tensor:
    """Cross entropy plus a Dice term, which counts a small category as much as a large one.

    The Dice term of a sample is the mean of 1 - (2·overlap + 1) / (total + 1) over the categories
    that it shows.

    Args:
        logits: [B, n, H, W].
        labels: [B, H, W], category of each pixel, int64.
        dice_weight: weight of the Dice term.
    """
    logits = _widen(logits)
    truth = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    probability = torch.softmax(logits, dim=1)
    overlap = (probability * truth).sum(dim=(2, 3))
    total = (probability + truth).sum(dim=(2, 3))
    present = (truth.sum(dim=(2, 3)) > 0).to(logits.dtype)
    distance = 1 - (2 * overlap + 1) / (total + 1)
    dice = (distance * present).sum(dim=1) / present.sum(dim=1)
    return F.cross_entropy(logits, labels) + dice_weight * dice.mean()
