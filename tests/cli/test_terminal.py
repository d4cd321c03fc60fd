"""Nothing that a name or a file holds reaches a terminal as more than text."""

import json

import pytest
from rich.table import Table

from showface import cli
from showface.runtime.bundle import default_bundle
from showface.runtime.untrusted.terminal import LONGEST, Terminal, printable

HOSTILE = [
    "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\nerror: forged", "a\rb", "\x08\x08", "\x00", "\ud800",
    "\u202egnp.exe",
    "[bold]x[/bold]", "[/]", "[link=http://x]", ":warning: :glasses:", "\x7f", "\u2028line", "\x85", "\x0b\x0c",
    "\x1bP+q\x1b\\",
    "\x1b]8;;http://x\x1b\\", "\u200b\ufeff",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_printed_as_one_line_of_text(capsys, text):
    Terminal(stderr=True).print(f"failed: {text}")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    if text.isprintable():
        assert said == f"failed: {text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_is_no_way_around(capsys, text):
    table = Table("name", title=text)
    table.add_row(text)
    Terminal(soft_wrap=False).print(table)
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_a_text_cannot_flood_a_terminal():
    assert len(printable("x" * 10**6)) == LONGEST + 1


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return end.value.code, found.out + found.err


@pytest.mark.parametrize("text", HOSTILE)
def test_arguments_and_manifests_are_no_way_around(tmp_path, capsys, text):
    folder = tmp_path / "bundle"
    folder.mkdir()
    manifest = json.loads((default_bundle() / "manifest.json").read_text())
    for changes in ({"variant": text}, {"precision": {**manifest["precision"], "coarse": text}}, {text: 1}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        code, said = run(capsys, "info", folder)
        assert code == 2
        assert said.startswith("error: ")
        assert said[:-1].isprintable()
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "checkpoint_sha256": text, "sha256": manifest["sha256"]})
    )
    code, said = run(capsys, "info", folder)
    assert all(line.isprintable() for line in said.split("\n"))
    for arguments in (["info", f"--{text}"], [text], ["inpaint", "x", "y", "--mask-from", text]):
        code, said = run(capsys, *arguments)
        assert code == 2
        assert said[:-1].isprintable()
