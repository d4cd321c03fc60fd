"""Messages of the runtime speak Python; the command line says their remedies as its options."""

import ast
import re
from pathlib import Path

import pytest
import typer

import showface.runtime
from showface.cli import main
from showface.cli.app import app
from showface.cli.printing import CommandLine, option_of, with_options
from showface.cli.verbs import register
from showface.runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(Path(showface.runtime.__file__).parent.rglob("*.py"))
COMMANDS = ("showface build ", "showface benchmark ", "showface pack ", "ray start ")  # whole ones stay as they are


def texts(path):
    """Return the texts of a file, docstrings aside; those of one f-string as one."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | parts):
            yield node.value


@pytest.fixture(scope="module")
def options():
    """Return the options of all verbs."""
    register(app)
    verbs = typer.main.get_command(app).commands.values()
    return {option for verb in verbs for parameter in verb.params for option in parameter.opts}


def test_no_message_names_an_option():
    named = [
        f"{path.name}: {text}"
        for path in FILES
        for text in texts(path)
        if re.search(r"(^|[ (])--[a-z]", text) and not text.startswith(" --") and not any(c in text for c in COMMANDS)
    ]
    assert named == []


def test_every_remedy_is_an_option(options):
    found = {name for path in FILES for text in texts(path) for name in re.findall(r"\bpass (\w+)=", text)}
    assert {"overwrite", "device", "backend", "mask_from", "invert", "alignment"} <= found
    assert {option_of(name) for name in found} <= options


def test_no_remedy_is_an_option_of_building_or_packing_alone():
    """Such are met by verbs that lack the option: the message holds the whole command."""
    found = {name for path in FILES for text in texts(path) for name in re.findall(r"\bpass (\w+)=", text)}
    assert not found & {"hardware_compatible", "graphs", "target"}


def test_every_page_that_a_message_names_is_there():
    named = {page for path in FILES for text in texts(path) for page in re.findall(r"\bdocs/[\w/-]+\.md\b", text)}
    assert named
    assert not {page for page in named if not (ROOT / page).is_file()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("is there; pass overwrite=True, or use another name", "is there; use --overwrite, or use another name"),
        ("pass mask_from='color:#RRGGBB'", "use --mask-from color:#RRGGBB"),
        ("crop it, or pass alignment=… to find the faces", "crop it, or use --align to find the faces"),
        ("if the mask is inverted, pass invert=True", "if the mask is inverted, use --invert-masks"),
        ("bypass overwrite=True and pass/overwrite=True.png", "bypass overwrite=True and pass/overwrite=True.png"),
    ],
)
def test_a_remedy_becomes_an_option_and_nothing_else_changes(capsys, text, said):
    assert with_options(text) == said
    CommandLine().print(text)
    assert capsys.readouterr().out == f"{said}\n"


def test_a_wrong_argument_is_named_in_either_language(capsys):
    assert str(UsageError("gpu is unknown", "mask_from")) == "mask_from: gpu is unknown"
    with pytest.raises(SystemExit):
        main(["masks", "absent", "out", "--mask-from", "nonsense"])
    assert capsys.readouterr().err.startswith("error: --mask-from: nonsense is unknown; use file, alpha")
