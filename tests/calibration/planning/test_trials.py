"""Estimates of plans: what an error is expected to cost, and that no stage runs for nothing."""

import numpy as np
import pytest

from showface.calibration.planning.candidates import Workshop
from showface.calibration.planning.plan import INT8, Plan
from showface.calibration.planning.quality import estimate, estimate_of, loss_of
from showface.calibration.planning.trials import Trials
from showface.calibration.settings import Calibrator, Target
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import open_bundle


@pytest.fixture(scope="module")
def shop(graphs, made, narrow_bundle):
    bundle = open_bundle(narrow_bundle)
    stages = bundle.manifest.stages
    sessions = {s.name: open_session(bundle.model(s), s, None, 1) for s in stages}  # that recorded the faces
    ranges = {s.name: {"minmax": made(s, Target.CPU)[1]} for s in stages}
    return Workshop(tuple(stages), graphs, ranges, Target.CPU, sessions, 1)


def plan_of(shop, *stages):
    named = {s: dict.fromkeys(g, INT8 if s in stages else "float: no") for s, g in shop.groups().items()}
    return Plan(Target.CPU, Calibrator.MINMAX, named)


def losses(*results):
    return estimate_of([loss_of(face, tensors, "completed_image") for face, tensors in results])


def with_noise(face, sigma):
    completed = face.tensors["completed_image"]
    noise = np.random.default_rng(1).normal(0, sigma, completed.shape)
    return {**face.tensors, "completed_image": (completed + noise).astype(np.float32)}


def test_half_of_what_was_lost_and_half_of_what_is_to_be_expected(three):
    """A candidate that comes half way to the truth gains 6 dB; its error alone would cost 10 log10(1 + 1/4)."""
    face = three[1]
    whole = face.face.rgb.transpose(2, 0, 1)[None] / 127.5 - 1
    nearer = ((face.tensors["completed_image"] + whole) / 2).astype(np.float32)
    found = losses((face, {**face.tensors, "completed_image": nearer}))
    assert found.psnr_drop == pytest.approx((10 * np.log10(1.25) - 20 * np.log10(2)) / 2, abs=0.05)


def test_the_loss_of_an_independent_error_is_that_of_the_added_power(three):
    face = three[1]
    assert losses((face, face.tensors)).psnr_drop == 0
    hole = face.face.hole
    truth = face.face.rgb[hole] / 127.5 - 1
    own = float(((face.tensors["completed_image"][0].transpose(1, 2, 0)[hole] - truth) ** 2).mean())
    found = losses((face, with_noise(face, own**0.5)))
    assert found.psnr_drop == pytest.approx(10 * np.log10(2), abs=0.05)  # twice the error power
    assert found.hole_error == pytest.approx(own, rel=0.05)


def test_the_worst_bucket_counts(three):
    results = [(face, with_noise(face, 0.05 * k)) for k, face in enumerate(three)]
    each = [losses(result).psnr_drop for result in results]
    assert losses(*results).psnr_drop == pytest.approx(max(each))


def test_one_spoilt_face_makes_no_typical_loss(three):
    """Of ten faces of one bucket, one loses much: their mean says so, what is typical does not."""
    face, still = three[1], (0.001, 0.3)
    results = [(face, with_noise(face, still[k == 9])) for k in range(10)]
    calm = losses(*results[:9])
    found = losses(*results)
    assert found.psnr_drop > 20 * calm.psnr_drop
    assert found.typical_drop < 10 * calm.typical_drop
    hole = face.face.hole
    own = ((face.tensors["completed_image"][0].transpose(1, 2, 0) - face.face.rgb / 127.5 + 1)[hole] ** 2).mean()
    ratios = np.asarray([still[k == 9] ** 2 / own for k in range(10)])
    assert found.typical_drop == pytest.approx(10 * np.log10(1 + np.exp(np.log(ratios).mean())), rel=0.02)


class Counted:
    """A session that counts its runs."""

    def __init__(self, session, runs):
        self.session, self.stage, self.runs = session, session.stage, runs

    def run(self, inputs):
        self.runs.append(self.stage.name)
        return self.session.run(inputs)


def test_no_plan_runs_twice_and_no_stage_before_the_first_that_changed(shop, three, monkeypatch):
    runs, opened = [], Workshop.open_stage
    monkeypatch.setattr(Workshop, "open_stage", lambda *arguments: Counted(opened(*arguments), runs))
    faces, names = three[:2], [stage.name for stage in shop.stages]
    trials = Trials(shop, faces)
    plans = [plan_of(shop), plan_of(shop, "mrem"), plan_of(shop, "coarse", "mrem"), plan_of(shop, "coarse")]
    found = [trials.estimate(plan) for plan in plans]
    ran = [names[names.index(first) :] for first in ("mrem", "coarse", "mrem")]
    assert runs == [name for stages in ran for _ in faces for name in stages]
    assert found[0].hole_error == 0
    del runs[:]
    assert trials.estimate(plans[1]) is found[1]
    assert not runs
    for plan, kept in zip(plans[1:], found[1:], strict=True):
        assert kept == estimate(shop.open(plan), faces)
