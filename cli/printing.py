"""What the verbs print: the consoles, and the table that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

MIB = 2**20
# No markup: a path such as "faces [red]" is printed as it is.
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def printable(text: str) -> str:
    """Return ``text`` in one line: control characters and bytes that are no UTF-8 are written as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()


def say(text: str) -> None:
    """Print a line about what the user should know; names of files in it may hold any bytes."""
    errors.print(printable(text))


def print_parity(report: Mapping[str, Any]) -> None:
    """Print the figures of each stage and of the chain, what failed, and the verdict."""
    console = Console(markup=False, highlight=False)
    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    views = (*report["stages"].items(), ("chain", report["chain"]))
    for name, figures in views:
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    console.print(table)
    for name, figures in views:
        for failure in figures["failures"]:
            console.print(f"{name}: {failure}", soft_wrap=True)
    if not report["stages"]:
        console.print("the stages were not compared alone: neither side can run them")
    for found in report.get("attribution", []):
        console.print(f"{found['stage']}: {found['sentence']}", soft_wrap=True)
    console.print("passed" if report["passed"] else "FAILED")
