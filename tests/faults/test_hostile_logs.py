"""An output folder in which somebody else has written: logs, journals and shards of an earlier run that lie."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.journal import recover
from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import RESULTS_FILE, ResultLog
from showface.runtime.batch.run import complete_folder, open_log
from showface.runtime.errors import UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.inpainter import Inpainter

DONE = {"input": "a.png", "output": "a.png", "status": "done"}


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 1)


@pytest.fixture(scope="module")
def made(inpainter, faces, tmp_path_factory):
    """Return a folder with two faces and a mask, and what a run has made of them."""
    root = tmp_path_factory.mktemp("made")
    (root / "in").mkdir()
    for name, (face, _) in zip(("a.png", "b.png"), faces, strict=False):
        Image.fromarray(face).save(root / "in" / name)
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(root / "mask.png")
    complete(inpainter, root)
    return root


@pytest.fixture
def place(made, tmp_path):
    """Return a copy of it, and beside it a file that is nobody's business."""
    shutil.copytree(made, tmp_path / "place")
    (tmp_path / "outside.png").write_bytes(b"precious")
    return tmp_path / "place"


def complete(inpainter, root, **options):
    items = plan_items(root / "in", root / "out", None, None)
    chosen = Options(MaskSource("file", root / "mask.png"), **options)
    return sorted((r.input, r.status) for r in complete_folder(items, inpainter, chosen, root / "out" / RESULTS_FILE))


def pictures(root):
    return {path.name: path.read_bytes() for path in (root / "out").glob("*.png")}


def line(**changes):
    return json.dumps({**DONE, **changes}).encode() + b"\n"


LINES = {
    "nothing": b"",
    "a torn line": b'{"input": "a.png", "outp',
    "zeros": bytes(100_000),
    "no UTF-8": b"\xff\xfe\xfa\n" * 100,
    "deep": b"[" * 200_000 + b"\n",
    "a long line": b'{"input": "' + b"x" * 5_000_000 + b'"}\n',
    "lists and words": b'[1]\n"a"\nnull\n7\n' * 100,
    "a number of digits": b'{"input": ' + b"9" * 5000 + b"}\n",
    "other types": line(seconds="x") + line(key=5) + line(mask=[1]) + line(error={}) + line(hole_ratio="all"),
    "an unknown status": line(status="perfect") + line(status=["done"]),
    "more fields": line(owner="root"),
    "names that lead out": line(input="../../x.png", output="../../x.png") + line(input="/etc/x", output="/etc/x"),
    "an output of another name": line(output="outside.png") + line(output="../outside.png"),
    "escapes": line(input="\x1b]0;x\x07.png", output="\x1b]0;x\x07.png"),
    "half a surrogate": b'{"input": "\\ud800.png", "output": "\\ud800.png", "status": "done"}\n',
    "another key": line(key="0" * 64) + line(input="b.png", output="b.png", key="0" * 64),
    "a failure of all": line(status="failed", error="no") + line(input="b.png", output="b.png", status="failed"),
    "many inputs": b"".join(line(input=f"{k}.png", output=f"{k}.png") for k in range(20_000)),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_any_kind_cost_no_picture(inpainter, made, place, kind):
    """Before the log's own lines they change nothing; behind them the worst is that a face is completed again."""
    log = place / "out" / RESULTS_FILE
    own = log.read_bytes()
    log.write_bytes(LINES[kind] + b"\n" + own)
    assert complete(inpainter, place) == [("a.png", "skipped"), ("b.png", "skipped")]
    log.write_bytes(own + LINES[kind])
    assert {name for name, status in complete(inpainter, place) if status in ("done", "skipped")} == {"a.png", "b.png"}
    assert pictures(place) == pictures(made)
    assert (place.parent / "outside.png").read_bytes() == b"precious"
    assert sorted(os.listdir(place.parent)) == ["outside.png", "place"]


@pytest.mark.parametrize("kind", ["FIFO", "folder", "link", "device", "dangling"])
def test_what_is_no_log_is_refused_and_not_waited_for(inpainter, made, place, kind):
    log = place / "out" / RESULTS_FILE
    log.unlink()
    {"FIFO": lambda: os.mkfifo(log), "folder": log.mkdir, "link": lambda: log.symlink_to(place.parent / "outside.png"),
     "device": lambda: log.symlink_to("/dev/zero"), "dangling": lambda: log.symlink_to("x.jsonl")}[kind]()  # fmt: skip
    with pytest.raises(UsageError, match=r"results\.jsonl"):
        complete(inpainter, place)
    assert pictures(place) == pictures(made)
    assert (place.parent / "outside.png").read_bytes() == b"precious"


def test_a_log_that_is_gone_or_foreign_costs_no_picture(inpainter, place):
    """Without a line that explains them, outputs are somebody else's."""
    before = pictures(place)
    (place / "out" / RESULTS_FILE).write_bytes(b"shopping list\n")
    assert complete(inpainter, place) == [("a.png", "failed"), ("b.png", "failed")]
    assert pictures(place) == before
    assert (place / "out" / RESULTS_FILE).read_bytes().startswith(b"shopping list\n")  # nothing of it is lost


def digest(data):
    return hashlib.sha256(data).hexdigest()


JOURNALS = {
    **{kind: data for kind, data in LINES.items() if kind != "many inputs"},
    "no digest": line(),
    "a digest of another type": line(sha256=5) + line(sha256=None) + line(sha256=["0"]),
    "the digest of another file": line(sha256=digest(b"precious")),
    "a file outside": line(input="../outside.png", output="../outside.png", sha256=digest(b"precious")),
    "an absolute path": line(input="/etc/hostname", output="/etc/hostname", sha256="0" * 64),
    "a device": line(input="zero.png", output="zero.png", sha256="0" * 64),
    "a FIFO": line(input="pipe.png", output="pipe.png", sha256="0" * 64),
    "a name that no file can have": line(input="\0.png", output="\0.png", sha256="0" * 64),
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_journals_of_any_kind_are_no_results(inpainter, made, place, kind):
    """Those of a run that ended, here or on a worker of a cluster: each process leaves one of its own."""
    out = place / "out"
    (out / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(out / "pipe.png")
    for name in ("run-1", "ended-2"):
        (out / ".showface" / name).mkdir(parents=True)
        (out / ".showface" / name / "host-1-x.journal").write_bytes(JOURNALS[kind])
    assert [result for result in recover(out) if result.key] == []
    open_log(out / RESULTS_FILE).close()
    for name in ("zero.png", "pipe.png"):
        (out / name).unlink()
    assert complete(inpainter, place) == [("a.png", "skipped"), ("b.png", "skipped")]
    assert pictures(place) == pictures(made)
    assert (place.parent / "outside.png").read_bytes() == b"precious"
    assert not (out / ".showface").exists()


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
@pytest.mark.parametrize("name", ["x.journal", "x.tmp"])
def test_what_is_no_file_of_a_run_is_named_or_removed(place, name, kind):
    out = place / "out"
    path = out / ".showface" / "run-1" / name
    path.parent.mkdir(parents=True)
    {"FIFO": lambda: os.mkfifo(path), "folder": path.mkdir, "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    if name == "x.tmp" and kind != "folder":
        open_log(out / RESULTS_FILE).close()
        assert not (out / ".showface").exists()
        return
    with pytest.raises(UsageError, match=f"ended-1/{name}: "):
        open_log(out / RESULTS_FILE)
    open_again = ResultLog(out / RESULTS_FILE)  # the lock is free again
    open_again.close()


def test_two_runs_write_no_log_together(place):
    first = ResultLog(place / "out" / RESULTS_FILE)
    try:
        with pytest.raises(UsageError, match="another run writes to this folder"):
            ResultLog(place / "out" / RESULTS_FILE)
    finally:
        first.close()
