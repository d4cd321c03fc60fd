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

    from .app import app
    from .printing import errors
    from .verbs import register

    arguments = sys.argv[1:] if argv is None else list(argv)
    register(app, arguments[0] if arguments else None)
    try:
        app(args=arguments, prog_name="showface")
    except (ShowfaceError, OSError, ImportError) as error:
        if "--verbose" in arguments:
            raise
        if isinstance(error, ShowfaceError):
            argument = getattr(error, "argument", None)
            text, code = f"{'' if argument is None else f'--{argument}: '}{error}", error.exit_code
        elif isinstance(error, OSError):
            text = f"{error.filename or 'the system'}: {error.strerror or error}; --verbose tells where"
            code = ExitCode.USAGE
        elif "cv2" not in sys.modules and "lib" in str(error):
            text, code = f"OpenCV cannot be loaded: {error}; {HEADLESS}", ExitCode.USAGE
        else:
            raise
        errors.print(f"error: {text}")
        sys.exit(code)
