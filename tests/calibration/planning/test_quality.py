"""The figures of quality against direct numpy, and the ratios of time."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from showface.calibration.planning.quality import quality_of, run_from, score_recorded
from showface.calibration.planning.speed import batch_of, timing_of
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle


@pytest.fixture(scope="module")
def faces(recorded):
    return list(recorded)


def test_hole_psnr_and_labels(faces):
    face = faces[1]
    changed = dict(face.tensors)
    noise = np.random.default_rng(0).normal(0, 0.02, changed["completed_image"].shape)
    changed["completed_image"] = (changed["completed_image"] + noise).astype(np.float32)
    changed["semantic_map"] = changed["semantic_map"].copy()
    changed["semantic_map"][0, :16] += 1
    score = score_recorded(face, changed)
    hole = np.broadcast_to(face.tensors["mask"][0] > 0, noise.shape[1:])
    a, b = (tensors["completed_image"][0][hole] for tensors in (face.tensors, changed))
    assert score.hole_psnr == pytest.approx(peak_signal_noise_ratio(a, b, data_range=2.0), abs=1e-3)
    assert score.labels == pytest.approx(1 - 16 / 256)


def test_known_pixels_do_not_count(faces):
    face = faces[0]
    changed = dict(face.tensors)
    changed["completed_image"] = np.where(face.tensors["mask"] > 0, changed["completed_image"], 0.0)
    score = score_recorded(face, changed)
    assert score.hole_error == 0
    assert score.truth == score.float_truth


def test_drop_is_that_of_the_worst_bucket(faces):
    score = score_recorded(faces[0], faces[0].tensors)
    good = replace(score, bucket="1-20", truth=(1.0, 30.0, 0.9), float_truth=(1.0, 30.1, 0.9))
    bad = replace(score, bucket="20-40", truth=(1.0, 25.0, 0.9), float_truth=(1.0, 25.5, 0.9))
    quality = quality_of([good, bad])
    assert quality.psnr_drop == pytest.approx(0.5)
    assert quality.buckets["1-20"]["float_psnr"] == 30.1


def test_a_run_from_a_stage_on_keeps_what_was_recorded(faces, narrow_bundle):
    chain = open_chain(open_bundle(narrow_bundle), "cpu", 1)
    sessions = {session.stage.name: session for session in chain.sessions}
    face = faces[2]
    whole, part = run_from(sessions, face), run_from(sessions, face, "mrem")
    assert part["memory_codes"] is face.tensors["memory_codes"]
    for name, value in face.tensors.items():
        np.testing.assert_array_equal(whole[name], value)
        np.testing.assert_array_equal(part[name], value)


def test_batches_repeat_the_faces(faces):
    batch = batch_of(faces[:3], 8)
    assert batch["image"].shape == (8, 3, 256, 256)
    np.testing.assert_array_equal(batch["image"][7], faces[1].tensors["image"][0])


def test_the_ratio_tells_which_is_faster():
    timing = timing_of([0.02, 0.03], [0.002, 0.01])
    assert (timing.float_ms, timing.int8_ms) == pytest.approx((20.0, 2.0))
    assert timing.ratio == pytest.approx((10 + 3) / 2)
