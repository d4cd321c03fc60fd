"""The command line: ``showface VERB``. Exit codes: 0 good, 1 something failed, 2 usage or set-up."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)  # before the slow imports below
    from showface.runtime.errors import ShowfaceError, UsageError

    from . import benchmark, calibrate, engines, export, info, inpaint, serve, training, validate  # noqa: F401 - each registers its verbs
    from .common import app, errors

    arguments = sys.argv[1:] if arguments is None else [*arguments, *sys.argv[1:]]
    try:
        app(args=arguments)
    except ShowfaceError as error:
        if "--verbose" in arguments:
            raise
        errors.print(f"error: {error}")
        default = 2 if isinstance(error, UsageError) else 1
        sys.exit(getattr(error, "exit_code", default))
    except OSError as error:
        if "--verbose" in arguments:
            raise
        errors.print(f"error: {error.filename or 'the system'}: {error.strerror or error}; --verbose tells where")
        sys.exit(2)


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once; a verb that has work in flight to keep installs its own handler."""
    sys.exit(128 + number)
