"""``results.jsonl``: one line for every input of every run; the last line of an input wins.

A line names its input relative to INPUT and its output relative to OUTPUT, with forward slashes. So it
holds wherever the command is run from, and goes on to hold when both folders are moved. OUTPUT mirrors
INPUT, so that the two names of a line are equal; a line where they differ (paths relative to the working
directory, as the first development versions wrote them) is passed over like a torn one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import ShowfaceError, system_errors

RESULTS_FILE = "results.jsonl"
Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input.

    Attributes:
        input: path of the image, relative to INPUT (of a single image: its name).
        output: path of the completed image, relative to OUTPUT (of a named output: its name).
        status: ``done``, ``skipped`` (done by an earlier run) or ``failed``.
        error: one sentence, where it failed.
        hole_ratio: share of the image that is hole, in [0, 1].
        seconds: spent on this input; its share of the batch included.
        key: digest of image, mask, bundle and options; decides what is already done.
    """

    input: str
    output: str
    status: Status
    error: str | None = None
    hole_ratio: float | None = None
    seconds: float = 0.0
    key: str | None = None


def result_key(image: bytes, mask: bytes | None, bundle_digest: str, options: str) -> str:
    """Return the digest that decides whether an input is done already."""
    digest = hashlib.sha256()
    for part in (image, mask or b"", bundle_digest.encode(), options.encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _result(line: str) -> Result | None:
    """Return the result that a line holds; None for a torn or foreign one."""
    try:
        result = Result(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds: list[tuple[object, Any]] = [
        (result.input, str),
        (result.output, str),
        (result.error, str | None),
        (result.hole_ratio, float | int | None),
        (result.seconds, float | int),
        (result.key, str | None),
    ]
    known = all(isinstance(value, kind) for value, kind in kinds) and result.status in get_args(Status)
    return result if known and result.input == result.output else None


def _lines(path: Path) -> Iterator[Result]:
    """Yield the results in the file."""
    with system_errors(ShowfaceError, path, "cannot be read"):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    yield from (result for result in map(_result, text.splitlines()) if result is not None)


def read_results(path: Path) -> dict[str, Result]:
    """Return the last result of each input."""
    return {result.input: result for result in _lines(path)}


def written_outputs(path: Path) -> set[str]:
    """Return every output that some line explains, also where the input failed later on."""
    return {r.output for r in _lines(path) if r.status != "failed"}


def append_result(path: Path, result: Result) -> None:
    """Append one line; a torn last line of an earlier run is ended first.

    Raises:
        ShowfaceError: the line cannot be written; the run cannot be accounted for then.
    """
    with system_errors(ShowfaceError, path, "cannot be written"), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(asdict(result)).encode() + b"\n")
