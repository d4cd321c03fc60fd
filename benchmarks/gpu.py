"""The first run on a GPU, as one command: is the chain right there, and how fast is it?

    python benchmarks/gpu.py OUT [--bundle BUNDLE] [--checkpoint CHECKPOINT] [--quick] [--only SECTION …]

Each section runs in a process of its own, so that a crash or a lost device ends that section alone; what cannot run
says why. OUT gets ``gpu.json`` and ``gpu.md``. Exit code 1 where a section failed. ``--fake`` runs the device chain
over the fake of the tests, for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECTIONS = {
    "environment": "What is here: driver, devices, packages",
    "chain": "The device chain on real CUDA, CuPy in the engines' place: equal, overlapping, without leaks",
    "lost-device": "An illegal address ends the chain with one sentence",
    "onnxruntime": "ONNX Runtime on CUDA: parity with PyTorch, latency, float32 and float16",
    "engines": "Engines: build, parity, cold and warm start, eager launches against CUDA graphs, float32 and float16",
    "torch": "PyTorch on the same GPU: eager, bfloat16, compiled",
    "joined": "The five stages against one joined graph",
    "choices": "What only a device can decide: search of convolutions, tuning of engines",
}
LIMIT = 3600  # seconds a section


def main() -> int:
    """Run the sections and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path, help="float32 bundle; default: the one shipped")
    parser.add_argument("--checkpoint", type=Path, help="its weights, for the PyTorch baselines; default: the bundle's")
    parser.add_argument("--quick", action="store_true", help="few rounds and batches")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--fake", action="store_true", help="the device chain over the tests' fake")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section is not None:
        return _serve(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = dict[str, dict[str, Any]]()
    for name in arguments.only:
        results[name] = _run(name, sys.argv[1:])
        document = {"schema_version": 1, "sections": results}  # written each time: time on a GPU may end at any moment
        (arguments.out / "gpu.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (arguments.out / "gpu.md").write_text("# First run on a GPU\n\n" + to_markdown(results), encoding="utf-8")
        print(to_markdown({name: results[name]}), flush=True)
    return int(any(result["status"] == "failed" for result in results.values()))


def _serve(arguments: argparse.Namespace) -> int:
    """Run one section in this process; its figures are the last line of standard output."""
    sys.path.insert(0, str(Path(__file__).with_name("first_run")))
    import sections

    try:
        figures = sections.RUN[arguments.section](arguments)
    except sections.CannotRunError as error:
        figures = {"status": "skipped", "why": str(error)}
    print("\n" + json.dumps(figures))
    return 0


def _run(name: str, given: Sequence[str]) -> dict[str, Any]:
    started = time.monotonic()
    command = [sys.executable, __file__, *given, "--section", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"status": "failed", "why": f"took more than {LIMIT} s", "seconds": LIMIT}
    seconds = round(time.monotonic() - started, 1)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = " ".join(done.stderr.split())[-800:]
        return {"status": "failed", "why": f"exit code {done.returncode}: {said}", "seconds": seconds}
    return {"status": "done", **json.loads(lines[-1]), "seconds": seconds}


def to_markdown(results: dict[str, dict[str, Any]]) -> str:
    """Return each section with its figures, or why it did not run."""
    parts = []
    for name, result in results.items():
        figures = {key: value for key, value in result.items() if key not in ("status", "why", "seconds")}
        parts += [f"## {SECTIONS[name]}", "", f"{result['status']}, {result['seconds']} s"]
        if "why" in result:
            parts += ["", result["why"]]
        parts += ["", *_table(figures)]
    return "\n".join(parts) + "\n"


def _table(figures: dict[str, Any], prefix: str = "") -> list[str]:
    """Return rows of facts; a list of rows becomes a table of its own."""
    rows, tables = [], list[str]()
    for key, value in figures.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            columns = list(dict.fromkeys(column for row in value for column in row))
            tables += ["", f"**{prefix}{key}**", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
            tables += ["| " + " | ".join(_text(row.get(column)) for column in columns) + " |" for row in value]
        else:
            rows.append(f"| {prefix}{key} | {_text(value)} |")
    head = ["| fact | value |", "|---|---|"] if rows else []
    return [*head, *rows, *tables, ""]


def _text(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
