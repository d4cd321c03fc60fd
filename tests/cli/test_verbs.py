"""The shape of the command line: short verbs, and no import of a module by its name in a string."""

import ast
import inspect
from pathlib import Path

import pytest

import showface.cli.verbs
from showface.cli.verbs import VERBS

LINES = 40
FILES = sorted(Path(showface.cli.verbs.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_a_verb_parses_calls_the_library_and_prints(verb):
    body = inspect.getsource(verb).partition('"""')[2]
    assert len(body.splitlines()) <= LINES
    assert Path(inspect.getsourcefile(verb)).stem == verb.__name__


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_module_is_imported_by_a_string(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if "import_module" in ast.unparse(call.func)]
