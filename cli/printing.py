"""What the verbs print: the consoles, the options that the library's messages mean, and a table of several verbs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from showface.runtime.untrusted.terminal import Terminal, printable

if TYPE_CHECKING:
    from rich.status import Status

MIB = 2**20
_REMEDY = re.compile(r"\bpass (\w+)=(?:True|…|'([^']+)')")
_OTHER_NAMES = {"alignment": "align", "invert": "invert_masks", "suffix": "mask_suffix"}  # by those of the library


def option_of(argument: str) -> str:
    """Return the option of an argument of the library."""
    return f"--{_OTHER_NAMES.get(argument, argument).replace('_', '-')}"


def with_options(text: str) -> str:
    """Return a message of the library with the options that its remedies mean; see :mod:`showface.runtime.errors`.

    >>> with_options("is there; pass overwrite=True, or choose another")
    'is there; use --overwrite, or choose another'
    >>> with_options("is no square; pass alignment=… to find faces"), with_options("pass device='cpu'")
    ('is no square; use --align to find faces', 'use --device cpu')
    """
    return _REMEDY.sub(lambda found: " ".join(filter(None, ("use", option_of(found[1]), found[2]))), text)


class CommandLine(Terminal):
    """A terminal on which the messages of the library name options."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See :class:`rich.console.Console`, which renders every text by this."""
        return super().render_str(with_options(text), **options)


errors, console = CommandLine(stderr=True), CommandLine()
tables = CommandLine(soft_wrap=False)


class MessageHandler(logging.Handler):
    """Prints what the library says as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        kind = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        errors.print(f"{kind}{record.getMessage()}")


def print_messages(verbose: bool) -> None:
    """Print the library's messages and, where they are of some weight, those of other packages."""
    level = logging.DEBUG if verbose else logging.INFO
    library, others = logging.getLogger("showface"), logging.StreamHandler()
    if not any(isinstance(handler, MessageHandler) for handler in library.handlers):
        library.addHandler(MessageHandler(level))
        others.addFilter(lambda record: not record.name.startswith("showface"))
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[others])
    library.setLevel(level)


@contextmanager
def status_of(package: str) -> Iterator[Status]:
    """Show what a package of the library is at, down to its smallest steps, until the block ends."""
    logger = logging.getLogger(package)
    level = logger.level
    with errors.status(package.rpartition(".")[2]) as status:
        handler = _StatusHandler(status)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield status
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _StatusHandler(logging.Handler):
    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        self._status.update(Text(printable(record.getMessage())))


def print_parity(report: Mapping[str, Any]) -> None:
    """Print the figures of each stage and of the chain, what failed, and the verdict."""
    from rich.table import Table

    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    views = (*report["stages"].items(), ("chain", report["chain"]))
    for name, figures in views:
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    tables.print(table)
    for name, figures in views:
        for failure in figures["failures"]:
            console.print(f"{name}: {failure}")
    for sentence in report.get("not_compared", []):
        console.print(sentence)
    if not report["stages"]:
        console.print("the stages were not compared alone: neither side can run them")
    for found in report.get("attribution", []):
        console.print(f"{found['stage']}: {found['sentence']}")
    console.print("passed" if report["passed"] else "FAILED")
