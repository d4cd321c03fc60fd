"""The documentation: every link leads somewhere, the index names every page, folders stay small."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "benchmarks", "examples", "runtime")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
DOCS = ROOT / "docs"


def prose(page):
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page):
    """Return where the links and pictures of a page lead inside the repository: a path and an anchor each."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield (page.parent / unquote(path)).resolve() if path else page, anchor


def anchors(page):
    """Return the anchors of a page's headings: small letters, digits and hyphens, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_pages(text):
    """Return the pages and pictures of ``docs/`` that a text names."""
    return {ROOT / name for name in re.findall(r"(?<![\w./])docs/[\w./-]*\.(?:md|jpg)\b", text)}


def missing(page):
    """Return what a page links or names that is not there."""
    found = list(links(page))
    absent = {path for path, _ in found if not path.exists()} | {p for p in named_pages(prose(page)) if not p.exists()}
    lost = {f"{path}#{anchor}" for path, anchor in found if anchor and path.exists() and anchor not in anchors(path)}
    return sorted(map(str, absent | lost))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_or_names_is_there(page):
    assert missing(page) == []


def test_the_index_leads_to_every_page():
    pages = {page for page in DOCS.rglob("*.md")} - {DOCS / "README.md"}
    assert pages <= {path for path, _ in links(DOCS / "README.md")}


def test_folders_hold_at_most_a_dozen_files():
    folders = [DOCS, *(path for path in DOCS.rglob("*") if path.is_dir())]
    assert not {str(f.relative_to(ROOT)) for f in folders if len([p for p in f.iterdir() if p.is_file()]) > 12}


def test_a_broken_link_is_found(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# What it is, and is not\n")
    page.write_text("[a](other.md#what-it-is-and-is-not) [b](absent.md) [c](other.md#nowhere) [d](https://x.org/y)\n")
    assert missing(page) == [str(tmp_path / "absent.md"), f"{other}#nowhere"]
