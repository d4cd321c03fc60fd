"""What root never sees: files that may not be read, and folders that may not be written.

Root runs the command without the capability to pass over the modes of files; everybody else as they are.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RIGHTS = "-dac_override,-dac_read_search"
AS_OTHERS = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]


@pytest.fixture(scope="module")
def place(narrow_bundle, faces):
    """Return a folder with pictures, a mask and a bundle, and with what may not be read or written."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "in" / "sub").mkdir(parents=True)
        for path in ("a.png", "closed.png", "sub/b.png", "sealed/c.png"):
            (root / "in" / path).parent.mkdir(exist_ok=True)
            Image.fromarray(faces[0][0]).save(root / "in" / path)
        Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(root / "mask.png")
        shutil.copytree(narrow_bundle, root / "bundle")
        shutil.copy(root / "mask.png", root / "closed-mask.png")
        shutil.copytree(narrow_bundle, root / "closed-bundle")
        (root / "read-only").mkdir()
        for path in ("in/closed.png", "in/sealed", "closed-mask.png", "closed-bundle/coarse.onnx"):
            (root / path).chmod(0)
        (root / "read-only").chmod(0o555)
        yield root
        for path in ("in/sealed", "read-only"):
            (root / path).chmod(0o755)


@pytest.fixture(scope="module")
def run(place):
    """Return a function that runs the command line in that folder as an ordinary user."""
    before = AS_OTHERS if os.access(place / "in" / "closed.png", os.R_OK) else []
    if before and (
        shutil.which("setpriv") is None or not subprocess.call([*before, "cat", place / "in" / "closed.png"])
    ):
        pytest.skip("root cannot give up its rights here")

    def call(*arguments):
        command = [*before, sys.executable, "-m", "showface.cli", "--threads", "1", *map(str, arguments)]
        environment = {**os.environ, "HOME": str(place / "read-only")}
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, cwd=place, env=environment
        )
        assert "Traceback" not in result.stderr
        return result

    return call


OPTIONS = ("--device", "cpu", "--bundle", "bundle", "--masks")


def test_what_may_not_be_read_fails_alone(run, place):
    result = run("inpaint", "in", "out", *OPTIONS, "mask.png")
    assert result.returncode == 1, result.stderr
    lines = [json.loads(line) for line in (place / "out" / "results.jsonl").read_text().splitlines()]
    found = {line["input"]: (line["status"], line["error"]) for line in lines}
    assert {name for name, (status, _) in found.items() if status == "done"} == {"a.png", "sub/b.png"}
    assert "closed.png: cannot be read: Permission denied" in found["closed.png"][1]
    sealed = next(error for name, (_, error) in found.items() if name.startswith("sealed"))
    assert "Permission denied" in sealed
    assert len(found) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in", "read-only/out", *OPTIONS, "mask.png"), "read-only/out: cannot be written: Permission denied"),
        (("in", "read-only", *OPTIONS, "mask.png"), "Permission denied"),
        (("in", "out", *OPTIONS, "mask.png", "--bundle", "closed-bundle"), "coarse.onnx: cannot be"),
        (("in", "out", *OPTIONS, "mask.png", "--sheet", "read-only/sheet.png"), "permission denied"),
        (("in/closed.png", "x.png", *OPTIONS, "mask.png"), "'in/closed.png' is not readable"),
        (("in/a.png", "x.png", *OPTIONS, "closed-mask.png"), "--masks': path 'closed-mask.png' is not readable"),
        (("in/a.png", "read-only/x.png", *OPTIONS, "mask.png"), "Permission denied"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_is_not_allowed(run, place, arguments, words):
    before = set(os.listdir(place))
    result = run("inpaint", *arguments)
    assert result.returncode in (1, 2)
    assert words in result.stderr.replace("\n", " "), result.stderr
    assert os.listdir(place / "read-only") == []
    assert set(os.listdir(place)) - before <= {"out"}


def test_an_output_of_somebody_else_is_kept(run, place):
    """A file without the right to write it, in a folder that allows to replace it: it is not ours all the same."""
    (place / "mine").mkdir()
    (place / "mine" / "a.png").write_bytes(b"somebody else's")
    (place / "mine" / "a.png").chmod(0o444)
    result = run("inpaint", "in/a.png", "mine", *OPTIONS, "mask.png")
    assert result.returncode == 1, result.stderr
    assert (place / "mine" / "a.png").read_bytes() == b"somebody else's"
    assert "a.png: exists, and nothing says that showface wrote it" in result.stderr
