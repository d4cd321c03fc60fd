"""``.ci/run``: runs the README's quickstart on what is checked out, and leaves the checkout as it was."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("runtime", "training", "evaluation", "export", "calibration", "cli")
FAKE = """#!/bin/sh
mkdir -p .venv/bin
for name in pip showface ruff python; do cp "$0" ".venv/bin/$name"; done
echo "$(basename "$0") $* $(cat tracked.txt new.txt 2>&1 | tr '\\n' ' ')" >> "$RECORD"
case "$*" in *"$FAIL"*) exit 1;; esac
"""


def git(folder, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """Return a repository with a changed, a deleted, a new and some ignored files."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "check out"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    for name, text in {"tracked.txt": "old", "gone.txt": "x", ".gitignore": ".venv/\nbuild/\nout/\n"}.items():
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "tracked.txt").write_text("changed")
    (folder / "new.txt").write_text("new")
    (folder / "gone.txt").unlink()
    for name in (".venv", "build", "out"):
        (folder / name).mkdir()
        (folder / name / "mine").write_text("precious")
    return folder


def run(checkout, tmp_path, fail="never"):
    """Run the script with commands that only record how they were called; return the result and the record."""
    temporary, commands = tmp_path / "tmp", tmp_path / "bin"
    temporary.mkdir()
    commands.mkdir()
    (commands / "python3").write_text(FAKE)
    (commands / "python3").chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(temporary), "RECORD": str(tmp_path / "record"), "FAIL": fail}
    environment["PATH"] = f"{commands}:{environment['PATH']}"
    result = subprocess.run([checkout / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)
    assert list(temporary.iterdir()) == []
    return result, (tmp_path / "record").read_text().splitlines()


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git" not in p.relative_to(folder).parts}


def quickstart():
    """Return the lines of the README's only block of shell commands."""
    (block,) = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return block.splitlines()


def test_the_quickstart_the_linters_and_the_tests_run_on_what_is_checked_out(checkout, tmp_path):
    before = snapshot(checkout)
    result, record = run(checkout, tmp_path)
    assert result.returncode == 0, result.stderr
    mypy = f"python -m mypy {' '.join(f'-p showface.{name}' for name in PACKAGES)}"
    steps = [line.removeprefix(".venv/bin/") for line in quickstart()]
    steps += ["pip install -c constraints.txt .[dev]", "ruff check .", mypy, "python -m pytest -n 2 --dist worksteal"]
    assert record == [f"{step} changednew" for step in steps]
    assert snapshot(checkout) == before


@pytest.mark.parametrize("step", ["venv", "inpaint", ".[dev]", "ruff", "mypy", "pytest"])
def test_the_first_failure_ends_the_run(checkout, tmp_path, step):
    before = snapshot(checkout)
    step = "check ." if step == "ruff" else step
    result, record = run(checkout, tmp_path, fail=step)
    assert result.returncode != 0
    assert step in record[-1]
    assert snapshot(checkout) == before


def test_the_script_holds_the_commands_that_the_readme_shows():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "\n".join(quickstart()) in script


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
