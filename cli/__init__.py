"""The command line: ``showface VERB``. Exit codes: 0 good, 1 something failed, 2 usage or set-up."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .signals import end_at_signals

HEADLESS = (
    "where there are no graphical libraries, the headless one serves as well: "
    "pip uninstall opencv-python; pip install opencv-python-headless"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        argv: what follows the program's name; None takes the arguments of this process.
    """
    end_at_signals()  # before the slow imports below
    from showface.runtime.errors import ExitCode, ShowfaceError

    try:
        from .app import app
        from .printing import errors
        from .verbs import register
    except ImportError as error:
        if "cv2" in sys.modules or "lib" not in str(error):
            raise
        print(f"error: OpenCV cannot be loaded: {error}; {HEADLESS}", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    register(app)
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        app(args=arguments, prog_name="showface")
    except ShowfaceError as error:
        if "--verbose" in arguments:
            raise
        argument = getattr(error, "argument", None)
        errors.print(f"error: {'' if argument is None else f'--{argument}: '}{error}")
        sys.exit(error.exit_code)
    except OSError as error:
        if "--verbose" in arguments:
            raise
        errors.print(f"error: {error.filename or 'the system'}: {error.strerror or error}; --verbose tells where")
        sys.exit(ExitCode.USAGE)
