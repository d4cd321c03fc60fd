"""The order of the packages: each imports only what stands before it, anywhere in its files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("runtime", "training", "evaluation", "export", "calibration", "cli")


def imported_packages(path):
    """Return the package of this project that each import in a file names, with its line."""
    here = path.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level]
            modules = [".".join(["showface", *above, node.module or ""])]
        else:
            continue
        for module in modules:
            if module.startswith("showface."):
                yield module.split(".")[1], node.lineno


def files_of(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_before_it(package):
    allowed = ORDER[: ORDER.index(package) + 1]
    against = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in files_of(package)
        for other, line in imported_packages(path)
        if other not in allowed
    ]
    assert not against


def test_every_package_has_its_place_in_the_order():
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert found == set(ORDER)


def test_the_reader_finds_imports_of_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "runtime" / "batch" / "file.py"
    path.parent.mkdir(parents=True)
    lines = ["import showface.cli", "from showface import export", "from . import journal", "import os", "def f():"]
    lines += ["    from showface.training.run.loop import train", "    from ..errors import ShowfaceError"]
    path.write_text("\n".join(lines))
    assert sorted(name for name, _ in imported_packages(path)) == ["cli", "export", "runtime", "runtime", "training"]


def test_rooms_stay_small():
    """A folder can be read at a glance; of ``runtime`` few modules stand beside its folders.

    What counts is modules: files of Python that hold something, so neither ``__init__.py`` nor data.
    """
    folders = {path.parent for package in ORDER for path in files_of(package)}
    sizes = {str(folder.relative_to(ROOT)): len(modules_in(folder)) for folder in folders}
    assert not {name: size for name, size in sizes.items() if size > 12}
    assert len(modules_in(ROOT / "runtime")) <= 8


def modules_in(folder):
    return {*folder.glob("*.py")} - {folder / "__init__.py"}


@pytest.mark.parametrize("folder", [*ORDER, "tests"])
def test_a_file_can_be_read_at_a_sitting(folder):
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files_of(folder)}
    assert not {name: count for name, count in lines.items() if count > 350}


def test_runtime_has_few_folders():
    """Those with code: ``default_bundle`` is data, which nobody reads."""
    rooms = {path.parent.name for path in (ROOT / "runtime").glob("*/*.py")}
    assert "default_bundle" not in rooms
    assert len(rooms) <= 6


def test_no_name_stands_for_two_things():
    """A class, a type or a function has one meaning in all packages; a verb is called as what it calls."""
    places = {}
    for package in ORDER[:-1]:
        for path in files_of(package):
            for node in ast.parse(path.read_text("utf-8")).body:
                for name in names_of(node):
                    places.setdefault(name, {}).setdefault(package, []).append(str(path.relative_to(ROOT)))
    assert not {name: where for name, where in places.items() if len(where) > 1 and name not in SHARED}


# Said in several packages, of the same thing: a process that serves requests, a page that is written.
SHARED = {"serve", "write_report"}


def names_of(node):
    """Return the public names of classes, functions and types that a statement of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        names = [node.name]
    else:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()]
    return [name for name in names if not name.startswith("_") and name != "logger"]
