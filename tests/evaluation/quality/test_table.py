"""The table of figures: the paper's layout and rows, and which distances stand beside each other."""

import pytest
from fixtures.photographs import BUCKETS, table_rows

from showface.evaluation.quality.paper_tables import paper_rows
from showface.evaluation.quality.scores import BucketScores, Report, markdown_table
from showface.runtime.errors import UsageError


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
