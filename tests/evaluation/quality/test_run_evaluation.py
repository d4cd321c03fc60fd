"""What the verb runs: several methods in one call, the JSON, the contact sheet, and wrong calls."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fixtures.photographs import BUCKETS, IMAGES, table_rows
from skimage.metrics import peak_signal_noise_ratio

from showface.evaluation.quality.contact_sheet import write_contact_sheet
from showface.evaluation.quality.evaluate import EvaluationSet, run_evaluation
from showface.evaluation.quality.methods import BASELINES, MethodChoice
from showface.runtime.errors import ShowfaceError, UsageError
from showface.training.checkpoint import model_from_checkpoint, save_checkpoint


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
