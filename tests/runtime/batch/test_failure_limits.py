"""``--fail-fast`` and ``--max-failures``: the run ends early, keeps what was in flight, and can be continued."""

import json
import shutil

import pytest

BEFORE, AFTER = 4, 20  # good inputs by name before and after the broken ones
GOOD = [*(f"a{k:02d}.png" for k in range(BEFORE)), *(f"c{k:02d}.png" for k in range(AFTER))]


@pytest.fixture
def run(showface, face_folder, narrow_bundle, tmp_path):
    """Return a function that completes good inputs around ``broken`` ones, and returns process, log and outputs."""
    images = tmp_path / "in"
    images.mkdir()
    for name in GOOD:
        shutil.copy(face_folder[0] / "a.png", images / name)
    mask = face_folder[1] / "a.png"

    def start(broken, *options):
        for k in range(broken):
            (images / f"b{k:02d}.png").write_bytes(b"broken")
        arguments = ["inpaint", images, tmp_path / "out", "--masks", mask, "--bundle", narrow_bundle, *options]
        process = showface(*arguments, "--device", "cpu", "--batch-size", "2")
        log = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
        outputs = {path.name for path in (tmp_path / "out").iterdir()} - {"results.jsonl"}
        return process, [json.loads(line) for line in log], outputs

    return start


def named(lines, *statuses):
    return [line["input"] for line in lines if line["status"] in statuses]


@pytest.mark.parametrize(
    ("options", "limit", "broken"), [(("--fail-fast",), 1, 1), (("--max-failures", "3"), 3, 5)], ids=["first", "third"]
)
def test_the_run_ends_at_the_limit_and_is_continued(run, options, limit, broken):
    process, lines, outputs = run(broken, *options)
    assert process.returncode == 1, process.stderr
    failed, done = named(lines, "failed"), named(lines, "done")
    assert limit <= len(failed) <= broken  # readers may be past the limit when it is seen
    assert BEFORE <= len(done) < len(GOOD)
    assert sorted(done)[:BEFORE] == GOOD[:BEFORE]  # what was in flight when the limit was met
    assert outputs == set(done)  # each has its line, and nothing temporary is left
    assert len(lines) == len(failed) + len(done) == len({line["input"] for line in lines})
    total = len(GOOD) + broken
    count = f"{len(failed)} failure{'s' if len(failed) > 1 else ''}"
    assert f"stopped by {count} after {len(lines)} of {total}; run the same command again" in process.stderr

    again, more, outputs = run(broken)
    assert again.returncode == 1
    assert outputs == set(GOOD)
    assert sorted(named(more, "done")) == GOOD  # over both runs: none is lost, none done twice
    assert sorted(named(more[len(lines) :], "skipped")) == sorted(done)
    assert "stopped" not in again.stderr


def test_fewer_failures_than_the_limit_end_nothing(run):
    process, lines, outputs = run(2, "--max-failures", "3")
    assert process.returncode == 1
    assert "stopped" not in process.stderr
    assert sorted(named(lines, "done")) == GOOD
    assert sorted(named(lines, "failed")) == ["b00.png", "b01.png"]
    assert outputs == set(GOOD)
