"""The evaluation: pairs, methods, figures, tables and pictures, on small generated folders."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from showface.evaluation.faces import pair_files, read_pair
from showface.evaluation.quality.contact_sheet import write_contact_sheet
from showface.evaluation.quality.evaluate import EvaluationSet, evaluate, evaluate_parser, run_evaluation
from showface.evaluation.quality.feature_networks import FeatureNetwork
from showface.evaluation.quality.methods import BASELINES, MethodChoice, results_method, torch_device
from showface.evaluation.quality.paper_tables import paper_rows
from showface.evaluation.quality.scores import BucketScores, Report, markdown_table, to_json
from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import model_from_checkpoint, save_checkpoint
from showface.training.data.labels import CELEBAMASK_TO_CATEGORY

BINS = ("00-10", "10-20", "20-30", "30-40", "40-50", "50-60")
BUCKETS = {"1-20": BINS[:2], "20-40": BINS[2:4], "40-60": BINS[4:]}
IMAGES, MASKS = 9, 2  # one image more than a batch


def hole_rows(bin_index, mask):
    """Rows of hole of a 256² mask, a ratio within the bin."""
    return int(256 * (0.1 * bin_index + (0.03, 0.08)[mask]))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Nine smooth photographs of 300², and two masks a bin, each with its own number of hole rows."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(1)
    (folder / "images").mkdir()
    for k in range(IMAGES):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{k}.png"), cv2.resize(coarse, (300, 300), interpolation=cv2.INTER_CUBIC))
    for b, name in enumerate(BINS):
        (folder / "masks" / name).mkdir(parents=True)
        for i in range(MASKS):
            mask = np.zeros((256, 256), np.uint8)
            mask[100 : 100 + hole_rows(b, i)] = 255
            mask[: max(0, 100 + hole_rows(b, i) - 256)] = 255
            cv2.imwrite(str(folder / "masks" / name / f"{i}.png"), mask)
    return folder


@pytest.fixture
def copied(tree, tmp_path):
    """Return a function that copies the tree's masks and its first two images, to be spoilt."""
    for path in sorted(tree.glob("images/[01].png")) + sorted(tree.glob("masks/*/*.png")):
        target = tmp_path / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def completed(tree):
    """Telea's results by bucket and image, with the paths put together here: {bucket: [(truth, hole, result)]}."""
    found = {}
    for bucket, bins in BUCKETS.items():
        found[bucket] = []
        for k in range(IMAGES):
            mask = cv2.imread(str(tree / "masks" / bins[k % 2] / f"{k % MASKS}.png"), 0) > 127
            image = cv2.imread(str(tree / "images" / f"{k}.png"))
            truth = cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            found[bucket].append((truth, mask, cv2.inpaint(truth, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)))
    return found


def colours(pictures):
    """Five layers of which the last holds the values 0-255, and the second to fourth are darker by halves."""
    values = ((pictures + 1) * 127.5).round()
    return [values, values, values / 2, values / 4, values]


COLOURS = FeatureNetwork("FD-VGG16", colours, torch.device("cpu"))


@pytest.fixture(scope="module")
def telea_report(tree):
    return evaluate(BASELINES["telea"], EvaluationSet(tree / "images", tree / "masks"), COLOURS)


def perfect(faces):
    return [face.rgb for face in faces]


def table_rows(text):
    """Return the cells of a Markdown table without its rule, and the lines below it."""
    lines = text.strip().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells[0], *cells[2:]], [line for line in lines if line and not line.startswith("|")]


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


def write_results(folder, completed, scale=1):
    for bucket, faces in completed.items():
        (folder / bucket).mkdir(parents=True)
        for k, (_, _, result) in enumerate(faces):
            large = result.repeat(scale, axis=0).repeat(scale, axis=1)
            suffix = ".bmp" if k == 1 else ".png"
            cv2.imwrite(str(folder / bucket / f"{k}{suffix}"), cv2.cvtColor(large, cv2.COLOR_RGB2BGR))


@pytest.mark.parametrize("scale", [1, 2])
def test_folder_of_results_scores_as_its_method(tree, tmp_path, completed, telea_report, scale):
    write_results(tmp_path / "telea", completed, scale)
    report = evaluate(
        results_method(tmp_path / "telea", [f"{k}.png" for k in range(IMAGES)]),
        EvaluationSet(tree / "images", tree / "masks"),
        COLOURS,
    )
    assert report.rows == telea_report.rows


def test_missing_and_ambiguous_results_are_refused(tmp_path, completed):
    names = [f"{k}.jpg" for k in range(IMAGES)]
    write_results(tmp_path, completed)
    (tmp_path / "20-40" / "3.png").unlink()
    (tmp_path / "40-60" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"20-40/3\.png: .* 2 of 27 are missing"):
        results_method(tmp_path, names)
    with pytest.raises(UsageError, match=r"1-20/0\.png: .* 27 of 27 are missing"):
        results_method(tmp_path / "absent", names)
    with pytest.raises(UsageError, match=r"1\.png: has the same stem as 1\.jpg"):
        results_method(tmp_path, [*names, "1.png"])
    (tmp_path / "1-20" / "1.png").write_bytes((tmp_path / "1-20" / "0.png").read_bytes())
    with pytest.raises(UsageError, match=r"1\.png: has the same stem as 1\.bmp"):
        results_method(tmp_path, names)


@pytest.fixture
def threads():
    """Let a test change PyTorch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_checkpoint_and_its_bundle_agree(tree, tmp_path, narrow_checkpoint, narrow_bundle):
    """Each with its coarse face, which is the same in both and another than the chain's."""
    path = tmp_path / "figures.json"
    test = EvaluationSet(tree / "images", tree / "masks", limit=2)
    choice = MethodChoice(bundle=narrow_bundle, checkpoint=narrow_checkpoint, coarse=True)
    found = run_evaluation(choice, test, "cpu", 1)
    found.write(path, None)
    names = [
        f"{kind}{end}"
        for kind in (f"bundle {narrow_bundle.name}", f"checkpoint {narrow_checkpoint.name}")
        for end in (", coarse", "")
    ]
    assert [row[0] for row in table_rows(found.table)[0][2:6]] == names
    methods = json.loads(path.read_text())["methods"]
    assert list(methods) == names
    for bundle, checkpoint in zip(names[:2], names[2:], strict=True):
        for a, b in zip(methods[bundle]["images"], methods[checkpoint]["images"], strict=True):
            assert a["psnr"] < 40
            assert a["l1_percent"] == pytest.approx(b["l1_percent"], abs=1e-3)
            assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-2)
            assert a["ssim"] == pytest.approx(b["ssim"], abs=1e-4)
    coarse, chain = (methods[name]["buckets"]["40-60"]["psnr"] for name in names[:2])
    assert abs(coarse - chain) > 0.01


def test_a_coarse_network_alone_is_measured_as_the_papers_pconv(tree, tmp_path, narrow_checkpoint):
    """What the stage ``coarse`` leaves holds no other network."""
    model, checkpoint = model_from_checkpoint(narrow_checkpoint)
    path = tmp_path / "coarse.safetensors"
    save_checkpoint(path, model, checkpoint.config, ("coarse",), {})
    test = EvaluationSet(tree / "images", tree / "masks", limit=1)
    one = run_evaluation(MethodChoice(checkpoint=path, coarse=True), test, "cpu", paper=["ffhq/pconv"])
    rows, _ = table_rows(one.table)
    whole, _ = table_rows(run_evaluation(MethodChoice(checkpoint=narrow_checkpoint, coarse=True), test, "cpu").table)
    assert [row[0] for row in rows[2:]] == ["checkpoint coarse.safetensors, coarse", "paper, ffhq/pconv †"]
    assert rows[2][1:] == whole[2][1:]
    with pytest.raises(UsageError, match=r"coarse\.safetensors: holds coarse but not parser"):
        run_evaluation(MethodChoice(checkpoint=path), test, "cpu")


def report_of(values, label=None, lpips=None):
    """Return a report whose figures in the buckets are the rows of ``values``: L1, distance, PSNR, SSIM."""
    scores = {
        b: BucketScores(l1, p, s, fd, 5, 0, lpips=lpips) for b, (l1, fd, p, s) in zip(BUCKETS, values, strict=True)
    }
    return Report(scores, (), label)


FIGURES = [(0.1, 1.5, 30.25, 0.9), (0.2, 2.5, 20.25, 0.8), (0.3, 3.5, 10.25, 0.7)]


PAPER = paper_rows(["celebahq/mdrnets"])


def test_table_has_the_papers_layout():
    reports = {"a|b": report_of(FIGURES, "FID"), "plain": report_of(FIGURES, "FID")}
    rows, note = table_rows(markdown_table(reports, PAPER))
    assert rows[0] == ["Methods", "L1(%) ↓", "", "", "FID ↓", "", "", "PSNR ↑", "", "", "SSIM ↑", "", ""]
    assert rows[1] == ["", *["1–20%", "20–40%", "40–60%"] * 4]
    figures = "0.100 0.200 0.300 1.500 2.500 3.500 30.250 20.250 10.250 0.900 0.800 0.700"
    assert rows[3] == ["plain", *figures.split()]
    assert rows[2][:2] == ["a\\", "b"]  # the escape that keeps the cell whole
    paper = "0.585 1.451 2.937 2.369 6.410 12.086 35.772 28.669 24.177 0.968 0.900 0.800"
    assert rows[4] == ["paper, celebahq/mdrnets †", *paper.split()]
    assert note == ["a|b: 5 images a bucket; plain: 5 images a bucket.", "† On its own 2,000 test images, not these."]


def test_rows_of_the_paper_are_found_by_name():
    assert list(paper_rows(["FFHQ", "celebahq/ict"])) == [
        *(f"ffhq/{method}" for method in ("pconv", "deepfillv2", "pic", "ctsdg", "dsi", "ict", "mdrnets")),
        "celebahq/ict",
    ]
    assert paper_rows(["ffhq/ctsdg"])["ffhq/ctsdg"]["20-40"] == (1.532, 13.477, 27.044, 0.888)
    for name in ("lfw", "ffhq/lama", ""):
        with pytest.raises(UsageError, match="is no row of the paper's Table 1; give celebahq or ffhq"):
            paper_rows([name])


def test_measured_distances_have_columns():
    rows, _ = table_rows(markdown_table({"a": report_of(FIGURES, lpips=0.25), "b": report_of(FIGURES)}, PAPER))
    assert rows[0][13:] == ["LPIPS ↓", "", ""]
    assert [row[13:] for row in rows[2:]] == [["0.250"] * 3, ["–"] * 3, ["–"] * 3]


def test_vgg_distances_never_stand_beside_an_fid():
    rows, _ = table_rows(markdown_table({"ours": report_of(FIGURES, "FD-VGG16")}, PAPER))
    assert rows[0][4] == "FD-VGG16 ↓"
    assert rows[3][4:7] == ["–"] * 3
    assert "FID" not in str(rows)
    unmeasured = report_of([(l1, None, p, s) for l1, _, p, s in FIGURES])
    rows, _ = table_rows(markdown_table({"ours": unmeasured}, PAPER))
    assert rows[2][4:7] == ["–"] * 3
    with pytest.raises(UsageError, match="FD-VGG16 and FID do not compare"):
        markdown_table({"a": report_of(FIGURES, "FD-VGG16"), "b": report_of(FIGURES, "FID"), "c": unmeasured}, PAPER)


def test_contact_sheet_shows_best_median_and_worst(tree, tmp_path, telea_report, completed):
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, telea_report, BASELINES["telea"], tree / "images", tree / "masks")
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    tile, caption, gap = 160, 20, 8
    assert sheet.shape == (3 * (tile + caption), 9 * tile + 2 * gap, 3)
    for line, faces in enumerate(completed.values()):
        order = np.argsort([peak_signal_noise_ratio(truth, result) for truth, _, result in faces])
        top = line * (tile + caption) + caption
        assert sheet[top - caption : top].min() < 200  # something is written
        for part, k in enumerate((order[-1], order[IMAGES // 2], order[0])):
            truth, hole, result = faces[k]
            left = part * (3 * tile + gap)
            greyed = np.where(hole[..., None], 127, truth).astype(np.uint8)
            for column, image in enumerate((greyed, result, truth)):
                found = sheet[top : top + tile, left + column * tile : left + (column + 1) * tile]
                expected = cv2.resize(image, (tile, tile), interpolation=cv2.INTER_AREA)
                np.testing.assert_array_equal(found, expected)


def test_run_writes_json_and_sheet(tree, tmp_path, telea_report):
    test = EvaluationSet(tree / "images", tree / "masks")
    choice = MethodChoice(baselines=("navier-stokes", "telea"))
    measured = run_evaluation(choice, test, "cpu")
    measured.write(tmp_path / "a.json", tmp_path / "a.jpg")
    methods = json.loads((tmp_path / "a.json").read_text())["methods"]
    assert list(methods) == ["navier-stokes", "telea"]
    document = methods["telea"]
    assert document["frechet_label"] is None
    assert [row["psnr"] for row in document["images"]] == [row.psnr for row in telea_report.rows]
    assert set(document["buckets"]) == set(BUCKETS)
    assert cv2.imread(str(tmp_path / "a.jpg")) is not None
    assert table_rows(measured.table)[0][3][:2] == ["telea", f"{telea_report.buckets['1-20'].l1_percent:.3f}"]
    for name in ("a.json", "a.jpg"):  # what came there while the faces were measured
        (tmp_path / name).write_bytes(b"somebody else's")
    for json_file, sheet in ((tmp_path / "a.json", None), (None, tmp_path / "a.jpg")):
        with pytest.raises(ShowfaceError, match=r"exists, .* pass overwrite=True"):
            measured.write(json_file, sheet)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"somebody else's"}
    measured.write(tmp_path / "a.json", None, overwrite=True)
    assert json.loads((tmp_path / "a.json").read_text())["methods"] == methods


TELEA = MethodChoice(baselines=("telea",))


@pytest.mark.parametrize(
    ("choice", "changes", "device", "paper", "message"),
    [
        (MethodChoice(), {}, "cpu", "ffhq", "no method given"),
        (MethodChoice(coarse=True, baselines=("telea",)), {}, "cpu", "ffhq", "coarse is a stage of a bundle"),
        (MethodChoice(baselines=("magic",)), {}, "cpu", "ffhq", "magic is unknown; use telea or navier-stokes"),
        (TELEA, {"limit": 0}, "cpu", "ffhq", "limit 0: at least one image"),
        (TELEA, {"features": Path("absent.pth")}, "cpu", "ffhq", "absent.pth: cannot be read"),
        (TELEA, {"lpips": Path("absent")}, "cpu", "ffhq", "vgg16-397923af.pth: no such file; LPIPS needs"),
        (TELEA, {}, "cpu", "lfw", "lfw is no row of the paper's Table 1"),
        (MethodChoice(checkpoint=Path("absent")), {}, "gpu", "ffhq", "device: gpu is unknown; use auto, cpu or cuda:N"),
    ],
)
def test_wrong_calls_are_refused(tree, choice, changes, device, paper, message):
    test = EvaluationSet(tree / "images", tree / "masks", **changes)
    with pytest.raises(UsageError, match=message):
        run_evaluation(choice, test, device, paper=[paper])


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="cuda:99: PyTorch finds"):
        torch_device("cuda:99")


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
