"""``.ci/run``: runs the README's two commands on what is checked out, and leaves the checkout as it was."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / ".ci" / "run"
README = """# A project

```bash
sh ./fake install
```

```bash
sh ./fake dev && sh ./fake test
```

```python
print("no command")
```
"""
FAKE = """
echo "$1: $(cat tracked.txt new.txt 2>&1 | tr '\\n' ' ')" >> "$RECORD"
if [ "$1" = install ]; then
    mkdir -p .venv/bin build out
    printf '#!/bin/sh\\necho "$(basename "$0") $*" >> "$RECORD"\\n' | tee .venv/bin/ruff > .venv/bin/python
    chmod +x .venv/bin/*
fi
if [ "$1" = test ]; then echo "3 passed"; fi
[ "$1" != "$FAIL" ]
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
    shutil.copy(RUN, folder / ".ci" / "run")
    for name, text in {
        "README.md": README, "fake": FAKE, "tracked.txt": "old", "gone.txt": "x", ".gitignore": ".venv/\nbuild/\nout/\n"
    }.items():  # fmt: skip
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


def run(checkout, tmp_path, fail=""):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "RECORD": str(tmp_path / "record"), "FAIL": fail}
    result = subprocess.run([checkout / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)
    assert list(temporary.iterdir()) == []
    return result, (tmp_path / "record").read_text().splitlines()


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git" not in p.relative_to(folder).parts}


def test_the_two_commands_and_the_linters_run_on_what_is_checked_out(checkout, tmp_path):
    before = snapshot(checkout)
    result, record = run(checkout, tmp_path)
    assert result.returncode == 0, result.stderr
    assert record == [
        "install: changednew",
        "dev: changednew",
        "ruff check .",
        "python -m mypy -p showface.runtime -p showface.cli -p showface.evaluation",
        "test: changednew",
    ]
    assert result.stdout.splitlines()[-1] == "3 passed"
    assert result.stderr == ""
    assert snapshot(checkout) == before


@pytest.mark.parametrize("step", ["install", "dev", "test"])
def test_the_first_failure_ends_the_run(checkout, tmp_path, step):
    before = snapshot(checkout)
    result, record = run(checkout, tmp_path, fail=step)
    assert result.returncode != 0
    assert record[-1].startswith(step)
    assert snapshot(checkout) == before
