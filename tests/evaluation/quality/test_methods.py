"""Methods to be measured: folders of results and devices, as they are found and refused."""

import cv2
import pytest
from fixtures.photographs import COLOURS, IMAGES

from showface.evaluation.quality.evaluate import EvaluationSet, evaluate
from showface.evaluation.quality.methods import results_method, torch_device
from showface.runtime.errors import UsageError


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


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="cuda:99: PyTorch finds"):
        torch_device("cuda:99")
