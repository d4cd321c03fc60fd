"""The report in a real browser, and as JSON and JUnit XML."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from showface.evaluation.parity.accumulate import ComparedPicture
from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.plots import picture_parts
from showface.evaluation.parity.report import write_report
from showface.evaluation.parity.sources import ChainSource, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.runtime.backends import open_chain
from showface.runtime.backends.chain import Chain
from showface.runtime.bundle import open_bundle

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The page is shown in a frame of the width in question, as a window cannot be narrower than some 500 pixels.
PROBE = """<!doctype html><iframe id="page" src="index.html" style="width:%dpx;height:900px;border:0"></iframe>
<script>
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument;
  page.querySelectorAll("details").forEach(part => part.open = true);
  const images = [...page.images];
  document.title = JSON.stringify({
    images: images.length, broken: images.filter(i => !i.complete || i.naturalWidth === 0).length,
    outside: [...page.body.querySelectorAll("*")].filter(e => !e.closest(".wide") && e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).display !== "inline").map(e => e.tagName + " " + e.className),
    width: page.documentElement.clientWidth, scroll: page.documentElement.scrollWidth,
  });
};
</script>"""


HOSTILE = (
    "<b>face & co</b>",
    "\"><img src=x onerror=\"document.title='taken'\">'{{ 7*7 }}</title></style></details>.png",
    "</pre><script>document.title='taken'</script>\u202egnp.exe\x00\x1b[31m" + "w" * 300,
)


@pytest.fixture(scope="module")
def failed(narrow_bundle, chain_inputs, tmp_path_factory):
    """Return the folder and the result of a report on a chain whose refiner is wrong, with an attribution."""
    bundle = open_bundle(narrow_bundle)
    chain = open_chain(bundle, "auto", "cpu", 1)
    reference = source_of_bundle(bundle, chain)

    class Wrong:
        stage = chain.sessions[-1].stage

        def run(self, inputs):
            completed = chain.sessions[-1].run(inputs)["completed_image"].copy()
            completed[:, 0, 100:110, 100:110] += np.float32(0.2)
            return {"completed_image": completed}

    candidate = ChainSource(Chain([*chain.sessions[:-1], Wrong()], "wrong"), reference.identity)
    cases = [
        Case(name, {"image": chain_inputs[0][k : k + 1], "mask": chain_inputs[1][k : k + 1]})
        for k, name in enumerate(HOSTILE)
    ]
    tolerances = plan_tolerances(reference.identity.precision, None, {})
    outcome = compare_sources(reference, candidate, cases, tolerances)
    result, pictures = outcome.result, outcome.pictures
    row = {
        "module": "refiner.to_rgb", "folded": "", "tensor": "t", "error": 0.1, "max_abs": None,
        "reference_range": (-1.0, 1.0), "candidate_range": (-1.0, 1.2), "outside_half": 0.01, "not_finite": 0,
    }  # fmt: skip
    sentence = "the error jumps in refiner.to_rgb"
    result["attribution"] = [{"stage": "refiner", "module": "refiner.to_rgb", "sentence": sentence, "modules": [row]}]
    folder = tmp_path_factory.mktemp("report") / "report"
    write_report(folder, result, pictures)
    return folder, result


def test_the_folder_holds_the_page_the_result_and_the_verdicts(failed):
    folder, result = failed
    assert {path.name for path in folder.iterdir()} == {"index.html", "results.json", "junit.xml"}
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(result))
    root = ET.parse(folder / "junit.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == [*result["stages"], "chain"]
    assert {name: int(suite.get("failures")) for name, suite in suites.items()}["refiner"] == 1
    assert int(suites["chain"].get("failures")) == 2  # the tensor, and PSNR in the hole
    assert all(int(suites[name].get("failures")) == 0 for name in ("coarse", "parser", "memory", "mrem"))
    assert sum(len(suite) for suite in root) == sum(int(suite.get("tests")) for suite in root)
    assert "max_abs" in suites["refiner"].find("testcase/failure").get("message")


def test_the_page_needs_nothing_beside_itself_and_escapes_names(failed):
    text = (failed[0] / "index.html").read_text("utf-8")
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:"}
    assert "<script" not in text
    assert not re.search(r"<(b>face|img src=x|script)", text)
    assert "{{ 7*7 }}&lt;/title&gt;" in text
    assert "&lt;b&gt;face &amp; co&lt;/b&gt;" in text
    for word in ("FAILED", "refiner.to_rgb", "the error jumps", "Growth of the error", "amplified"):
        assert word in text


def test_the_difference_is_amplified_to_white_and_what_is_not_finite_is_white():
    import cv2

    reference = np.zeros((3, 8, 8), np.float32)
    candidate = reference.copy()
    candidate[1, 2, 3], candidate[0, 5, 5] = 0.004, np.nan
    candidate[2, 7, 7] = 0.002
    parts, gain = picture_parts(ComparedPicture("x", reference, np.ones((1, 8, 8), np.float32), reference, candidate))
    assert gain == pytest.approx(500)
    shown = cv2.imdecode(np.frombuffer(parts["difference"], np.uint8), cv2.IMREAD_UNCHANGED)
    found = [shown[2, 3, 0], shown[5, 5, 0], shown[7, 7, 0], shown[0, 0, 0]]
    np.testing.assert_allclose(found, [255, 255, 128, 0], atol=1)
    assert set(parts) == {"input", "reference", "candidate", "difference"}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_readable_in_a_browser(failed, width, tmp_path):
    shutil.copytree(failed[0], tmp_path / "report")
    probe = tmp_path / "report" / "probe.html"
    probe.write_text(PROBE % width)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--enable-logging=stderr", "--v=0", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,1000",
        "--virtual-time-budget=10000", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in run.stderr
    assert "taken" not in re.search(r"<title>.*?</title>", run.stdout)[0]
    seen = json.loads(re.search(r"<title>(.*?)</title>", run.stdout)[1].replace("&quot;", '"'))
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["images"] == 2 + 4 * 3
    assert (seen["broken"], seen["outside"]) == (0, [])
