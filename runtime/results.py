"""``results.jsonl``: one line for every input of every run; the last line of an input wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

RESULTS_FILE = "results.jsonl"
Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input.

    Attributes:
        input: path of the image.
        output: path of the completed image; None where it failed before that was known.
        status: ``done``, ``skipped`` (done by an earlier run) or ``failed``.
        error: one sentence, where it failed.
        hole_ratio: share of the image that is hole, in [0, 1].
        seconds: spent on this input; its share of the batch included.
        key: digest of image, mask, bundle and options; decides what is already done.
    """

    input: str
    output: str | None
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


def _lines(path: Path) -> Iterator[Result]:
    """Yield the results in the file; torn or foreign lines are passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Result(**json.loads(line))
        except (ValueError, TypeError):
            continue


def read_results(path: Path) -> dict[str, Result]:
    """Return the last result of each input."""
    return {result.input: result for result in _lines(path)}


def written_outputs(path: Path) -> set[str]:
    """Return every output that some line explains, also where the input failed later on."""
    return {r.output for r in _lines(path) if r.status != "failed" and r.output is not None}


def append_result(path: Path, result: Result) -> None:
    """Append one line; a torn last line of an earlier run is ended first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(asdict(result)).encode() + b"\n")
