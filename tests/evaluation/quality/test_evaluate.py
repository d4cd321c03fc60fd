"""The evaluation: pairs, figures and parsers on small generated folders, against other libraries and loops."""

import json

import cv2
import numpy as np
import pytest
from fixtures.photographs import COLOURS, IMAGES, MASKS, hole_rows, perfect, table_rows
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from showface.evaluation.faces import pair_files, read_pair
from showface.evaluation.quality.evaluate import EvaluationSet, evaluate, evaluate_parser
from showface.evaluation.quality.scores import markdown_table, to_json
from showface.runtime.errors import UsageError
from showface.training.data.labels import CELEBAMASK_TO_CATEGORY


@pytest.mark.parametrize(("bucket", "low"), [("1-20", 0), ("20-40", 2), ("40-60", 4)])
def test_pairing_alternates_bins_and_cycles_masks(tree, bucket, low):
    pairs = pair_files(tree / "images", tree / "masks", bucket)
    rows = [int(read_pair(pair).hole[:, 0].sum()) for pair in pairs]
    assert rows == [hole_rows(low + k % 2, k % MASKS) for k in range(IMAGES)]
    assert [pair.image.name for pair in pairs] == [f"{k}.png" for k in range(IMAGES)]
    assert read_pair(pairs[0]).rgb.shape == (256, 256, 3)
    assert pair_files(tree / "images", tree / "masks", bucket, limit=3) == pairs[:3]


def test_figures_equal_scikit_image(telea_report, completed):
    options = {"channel_axis": 2, "gaussian_weights": True, "use_sample_covariance": False, "data_range": 255}
    rows = iter(telea_report.rows)
    for bucket, faces in completed.items():
        expected = []
        for k, (truth, _, result) in enumerate(faces):
            row = next(rows)
            figures = (
                np.abs(truth / 255 - result / 255).mean() * 100,
                peak_signal_noise_ratio(truth, result, data_range=255),
                structural_similarity(truth, result, **options),
            )
            assert (row.name, row.bucket) == (f"{k}.png", bucket)
            assert (row.l1_percent, row.psnr, row.ssim) == pytest.approx(figures, abs=1e-9)
            expected.append(figures)
        scores = telea_report.buckets[bucket]
        assert (scores.l1_percent, scores.psnr, scores.ssim) == pytest.approx(np.mean(expected, axis=0), abs=1e-9)
        assert (scores.images, scores.exact) == (IMAGES, 0)
    assert next(rows, None) is None


def test_frechet_distance_is_between_results_and_ground_truth(telea_report, completed):
    for bucket, faces in completed.items():
        a, b = (np.asarray([face[i].reshape(-1, 3).mean(axis=0) for face in faces]) for i in (2, 0))
        cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        shift = a.mean(axis=0) - b.mean(axis=0)
        expected = shift @ shift + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
        assert expected > 1e-3
        assert telea_report.buckets[bucket].frechet == pytest.approx(expected, rel=1e-6)


def test_perceptual_distance_is_relative_to_the_truth(telea_report, completed):
    rows = iter(telea_report.rows)
    for bucket, faces in completed.items():
        expected = [np.abs(result - truth.astype(float)).mean() / truth.mean() for truth, _, result in faces]
        assert [next(rows).perceptual for _ in faces] == pytest.approx(expected, rel=1e-5)
        assert telea_report.buckets[bucket].perceptual == pytest.approx(np.mean(expected), rel=1e-5)
        assert telea_report.buckets[bucket].lpips is None


def test_one_batch_at_a_time_with_progress(tree, caplog):
    caplog.set_level("DEBUG", "showface")
    sizes = []

    def method(faces):
        sizes.append(len(faces))
        return perfect(faces)

    evaluate(method, EvaluationSet(tree / "images", tree / "masks"))
    assert sizes == [8, 1] * 3
    assert caplog.messages == [f"{n} of 27 faces measured" for n in (8, 9, 17, 18, 26, 27)]


def test_results_equal_to_the_truth_have_no_psnr(tree):
    def once(faces):
        """Complete one face perfectly, and spoil one value of the others by 255."""
        results = [face.rgb.copy() for face in faces]
        for face, result in zip(faces, results, strict=True):
            if face.name != "0.png":
                result[0, 0, 0] = result[0, 0, 0] ^ 128
        return results

    report = evaluate(once, EvaluationSet(tree / "images", tree / "masks", limit=3))
    scores = report.buckets["1-20"]
    assert (scores.images, scores.exact) == (3, 1)
    assert scores.psnr == pytest.approx(10 * np.log10(255**2 * 3 * 256**2 / 128**2))
    assert "3 results that equal" in table_rows(markdown_table({"once": report}, {}))[1][0]

    def refuse(constant):
        raise AssertionError(constant)

    best = evaluate(perfect, EvaluationSet(tree / "images", tree / "masks", limit=1))
    document = json.loads(to_json({"best": best}), parse_constant=refuse)["methods"]["best"]
    assert document["buckets"]["1-20"]["psnr"] is None
    figures = {"l1_percent": 0, "psnr": None, "ssim": 1, "perceptual": None, "lpips": None}
    assert document["images"][0] == {"name": "0.png", "bucket": "1-20", **figures}


def remove_images(folder):
    for path in (folder / "images").iterdir():
        path.unlink()


def spoil(name):
    return lambda folder: (folder / name).write_bytes(b"not an image")


def remove_bin(folder):
    for path in (folder / "masks" / "30-40").iterdir():
        path.unlink()


def invert(folder):
    for path in (folder / "masks" / "10-20").iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), 0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_images, "images: no such folder, or no images in it"),
        (remove_bin, "masks/30-40: no such folder, or no images in it; the bins 00-10, 10-20"),
        (spoil("masks/40-50/0.png"), "masks/40-50/0.png: not an image"),
        (spoil("images/1.png"), "images/1.png: not an image"),
        (invert, r"masks/10-20: the mean hole ratio 0\.8\d contradicts the name; white must be the hole"),
    ],
)
def test_bad_folders_are_refused(copied, damage, message):
    damage(copied)
    with pytest.raises(UsageError, match=message):
        evaluate(perfect, EvaluationSet(copied / "images", copied / "masks"))


def test_masks_are_judged_before_the_first_face_is_completed(copied):
    invert(copied)
    with pytest.raises(UsageError, match="contradicts"):
        evaluate(lambda faces: pytest.fail("completed"), EvaluationSet(copied / "images", copied / "masks"))


def test_one_image_has_no_frechet_distance(copied):
    with pytest.raises(UsageError, match="two images or more"):
        evaluate(perfect, EvaluationSet(copied / "images", copied / "masks", limit=1), COLOURS)


def test_mask_of_another_size_is_resized_by_nearest_neighbour(copied):
    mask = np.zeros((512, 512), np.uint8)
    mask[7:90, 11:301] = 200
    cv2.imwrite(str(copied / "masks" / "00-10" / "0.png"), mask)
    face = read_pair(pair_files(copied / "images", copied / "masks", "1-20")[0])
    np.testing.assert_array_equal(face.hole, mask[::2, ::2] > 0)


@pytest.fixture
def labelled(tmp_path):
    """Ten photographs of flat colour and their label maps of 19 labels, in blocks of 32²."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 14, (10, 8, 8))  # no hat, necklace, neck or cloth; earring 15 in one
    labels[3, 0, 0] = 15
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for k, blocks in enumerate(labels):
        cv2.imwrite(str(tmp_path / "images" / f"{k:02d}.png"), np.full((256, 256, 3), 10 * k, np.uint8))
        large = blocks.repeat(64, axis=0).repeat(64, axis=1).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "labels" / f"{k:02d}.png"), large)
    return tmp_path, labels


def test_parser_iou_against_loops(labelled):
    folder, labels = labelled
    truth = np.asarray(CELEBAMASK_TO_CATEGORY)[labels]
    guess = np.random.default_rng(3).integers(0, 12, truth.shape)  # hat (11) is only predicted

    def parser(faces):
        assert faces.dtype == np.uint8
        assert faces.shape[1:] == (256, 256, 3)
        blocks = guess[faces[:, 0, 0, 0] // 10]
        return blocks.repeat(32, axis=1).repeat(32, axis=2).astype(np.int32)

    chosen = list(range(1, 10))
    scores, mean = evaluate_parser(
        parser, folder / "images", folder / "labels", [folder / "images" / f"{k:02d}.png" for k in chosen]
    )
    expected = []
    for category in range(14):
        a, b = guess[chosen] == category, truth[chosen] == category
        expected.append((a & b).sum() / (a | b).sum() if (a | b).any() else np.nan)
    np.testing.assert_allclose(scores, expected)
    assert expected[11] == 0
    assert np.isnan(expected[12:]).all()
    assert mean == pytest.approx(np.mean(expected[:12]))


def test_parser_needs_files_and_labels(labelled):
    folder, _ = labelled
    with pytest.raises(UsageError, match="name at least one"):
        evaluate_parser(perfect, folder / "images", folder / "labels", [])
    with pytest.raises(UsageError, match=r"labels/11\.png"):
        evaluate_parser(perfect, folder / "images", folder / "labels", ["11.png"])
