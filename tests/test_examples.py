"""The examples in the docstrings of ``runtime`` and ``evaluation`` give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(("showface", *path.relative_to(ROOT).with_suffix("").parts))
    for package in ("runtime", "evaluation")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_the_public_functions_have_examples():
    assert len(MODULES) >= 9
