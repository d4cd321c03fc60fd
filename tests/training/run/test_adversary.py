"""The adversaries: which patches count as what, the adapted weight, and what gets a gradient."""

import numpy as np
import pytest
import torch

from showface.training.config import AdversarialConfig
from showface.training.loss_networks.feature_heads import FeatureHeads
from showface.training.loss_networks.vgg import WIDTHS
from showface.training.losses import patch_discriminator_loss, patch_generator_loss
from showface.training.process import make_fabric
from showface.training.run.adversary import ADAPT_EVERY, Adversary
from showface.training.tasks.base import Outcome

FABRIC = make_fabric("cpu", 1, "fp32")
HEADS = AdversarialConfig("vgg-heads", "hinge", 8, 1e-2, (0.0, 0.99), (1, 2), adaptive=0.7, start=4, ramp=4)


def outcome(photograph=(True, False)):
    generator = torch.Generator().manual_seed(0)
    result = torch.rand(2, 3, 32, 32, generator=generator).requires_grad_()
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, :16] = 1
    projections = [torch.randn(WIDTHS[b], 3, 1, 1, generator=generator) for b in range(2)]
    found, wanted = (
        [torch.nn.functional.conv2d(torch.nn.functional.avg_pool2d(x, 2**b), projections[b]) for b in range(2)]
        for x in (result, torch.rand(2, 3, 32, 32, generator=generator))
    )
    return Outcome({}, result, result.detach(), mask, found, wanted, torch.tensor(photograph))


@pytest.mark.parametrize("kind", ["paper", "hinge"])
def test_patch_losses_against_loops(kind):
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(3, 1, 4, 4, generator=generator) for _ in range(2))
    holes = torch.rand(3, 1, 4, 4, generator=generator) > 0.5
    photographs = torch.tensor([True, False, True])

    def costs(logit):
        if kind == "hinge":
            return max(0.0, 1 - logit), max(0.0, 1 + logit)
        return float(np.log1p(np.exp(-logit))), float(np.log1p(np.exp(logit)))

    truths, judged = [], []
    for b in range(3):
        for i in range(4):
            for j in range(4):
                if photographs[b]:
                    truths.append(costs(float(real[b, 0, i, j]))[0])
                for_real, for_fake = costs(float(fake[b, 0, i, j]))
                if holes[b, 0, i, j]:
                    judged.append(for_fake)
                elif photographs[b]:
                    judged.append(for_real)
    found = patch_discriminator_loss(real, fake, holes, photographs, kind)
    assert float(found) == pytest.approx(np.mean(truths) + np.mean(judged), rel=1e-5)

    def wanted(logit):
        return -logit if kind == "hinge" else -float(np.log1p(np.exp(logit)))

    each = [np.mean([wanted(float(v)) for v in fake[b][holes[b]]]) for b in range(3)]
    assert float(patch_generator_loss(fake, holes, kind)) == pytest.approx(np.mean(each), rel=1e-5)


def test_no_photograph_and_no_hole_are_no_fault():
    logits, nothing = torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    assert float(patch_discriminator_loss(logits, logits, nothing, torch.tensor([False, False]), "hinge")) == 0
    assert float(patch_generator_loss(logits, nothing, "hinge")) == 0


def test_heads_learn_to_tell_completed_from_real():
    torch.manual_seed(0)
    adversary, batch = Adversary(HEADS, (0.9, 0.99), FABRIC), outcome((True, True))
    losses = [float(adversary.step(batch, 1.0)) for _ in range(40)]
    assert losses[0] == pytest.approx(2.0, abs=0.4)
    assert losses[-1] < 0.5 * losses[0]


def test_the_generator_gets_a_gradient_and_the_heads_none():
    torch.manual_seed(0)
    adversary, batch = Adversary(HEADS, (0.9, 0.99), FABRIC), outcome()
    terms = adversary.terms(batch)
    assert set(terms) == {"adversarial", "feature_matching"}
    terms["adversarial"].backward(retain_graph=True)
    gradient = batch.result.grad.clone()
    assert gradient[:, :, :14].abs().sum() > 0
    assert all(p.grad is None for p in adversary.discriminator.parameters())
    before = {k: v.clone() for k, v in adversary.discriminator.state_dict().items()}
    adversary.step(batch, 1.0)
    assert torch.equal(batch.result.grad, gradient)
    changed = {k for k, v in adversary.discriminator.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.endswith("original") for k in changed)
    assert not any("project" in k for k in changed)  # it is fixed


def test_feature_matching_is_zero_for_the_truth():
    torch.manual_seed(0)
    adversary, batch = Adversary(HEADS, (0.9, 0.99), FABRIC), outcome()
    adversary.discriminator.eval()
    assert float(adversary.terms(batch)["feature_matching"]) > 0
    same = batch._replace(found=batch.wanted)
    assert float(adversary.terms(same)["feature_matching"]) == pytest.approx(0, abs=1e-6)


def test_the_adapted_weight_balances_gradients_and_ramps():
    adversary = Adversary(HEADS, (0.9, 0.99), FABRIC)
    assert adversary.weight(3, 1.0) == 0
    assert not adversary.adapts_at(3)
    assert adversary.adapts_at(4)
    adversary.adapt(2.0, 0.5)
    assert adversary.adapted == pytest.approx(0.7 * 4)
    assert [adversary.weight(step, 1.0) for step in (4, 5, 7, 100)] == pytest.approx([0.7, 1.4, 2.8, 2.8])
    assert not adversary.adapts_at(5)
    assert adversary.adapts_at(4 + ADAPT_EVERY)
    adversary.adapt(1.0, 0.5)
    assert 0.7 * 2 < adversary.adapted < 0.7 * 4
    adversary.adapt(1.0, 0.0)
    assert np.isfinite(adversary.adapted)


def test_its_state_resumes_it():
    torch.manual_seed(0)
    first, second = Adversary(HEADS, (0.9, 0.99), FABRIC), Adversary(HEADS, (0.9, 0.99), FABRIC)
    first.step(outcome(), 1.0)
    first.adapt(1.0, 1.0)
    second.load(first.state())
    assert second.adapted == first.adapted
    assert float(first.step(outcome(), 1.0)) == float(second.step(outcome(), 1.0))


def test_a_head_sees_the_mask():
    torch.manual_seed(0)
    heads = FeatureHeads([16, 32], 8)
    features = [torch.randn(1, 16, 16, 16), torch.randn(1, 32, 8, 8)]
    empty, full = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    for (logits, activations), (other, _) in zip(heads(features, empty), heads(features, full), strict=True):
        assert logits.shape[-1] == activations[0].shape[-1] // 2
        assert not torch.allclose(logits, other)
