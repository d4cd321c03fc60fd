"""The command line: ``showface VERB``. Exit codes: 0 good, 1 something failed, 2 usage or set-up."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from .signals import end_at_signals, ended_by

IMPORTS_THRESHOLD = 50_000  # of the garbage collector: imports make little, and take 17 ms less of 250
HEADLESS = (
    "where there are no graphical libraries, the headless one serves as well: "
    "pip uninstall opencv-python; pip install opencv-python-headless"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line on ``argv``, by default the arguments of this process, and exit."""
    end_at_signals()  # before the slow imports below
    from showface.runtime.untrusted.streams import guard_streams

    guard_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb, thresholds = _verb(arguments), gc.get_threshold()
    if argv is None and verb == "inpaint":
        _hurry(arguments)
    from .app import app
    from .printing import errors
    from .verbs import register

    register(app, verb)
    gc.set_threshold(*thresholds)
    try:
        # Not standalone: it would print what it refuses in a frame, escapes of the terminal included.
        code = app(args=arguments or ["--help"], prog_name="showface", standalone_mode=False)
    except Exception as error:
        if ended_by():  # a signal in the middle of a library's import is reported as a failure of that
            sys.exit(128 + ended_by())
        if "--verbose" in arguments:
            raise
        text, code = _explained(error)
        errors.print(f"error: {text}")
    if argv is None:
        gc.freeze()  # what is left ends with the process, and the last collection need not look through it
    sys.exit(code or 0)


def _verb(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is neither an option nor the number of ``--threads``."""
    words = iter(arguments)
    for word in words:
        if word == "--threads":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _hurry(arguments: Sequence[str]) -> None:
    """Let ``inpaint`` start sooner: a third of the time of one photograph is that of imports."""
    from showface.runtime.images.decoder_start import start_early

    gc.set_threshold(IMPORTS_THRESHOLD)
    if not any(argument.startswith("--cluster") for argument in arguments):  # there the workers have decoders
        start_early()  # its libraries load beside those of this process


def _explained(error: Exception) -> tuple[str, int]:
    """Return what is said of an error, in one sentence, and the exit code."""
    from showface.runtime.errors import ExitCode, ShowfaceError, UsageError

    from .printing import option_of

    if isinstance(error, UsageError) and error.argument is not None:
        return f"{option_of(error.argument)}: {error.text}", error.exit_code
    if isinstance(error, ShowfaceError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # of the parser of arguments
        context = getattr(error, "ctx", None)
        path = "showface" if context is None else context.command_path
        return f"{error.format_message().rstrip('.')}; see: {path} --help", ExitCode.USAGE
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}; --verbose tells where", ExitCode.USAGE
    if isinstance(error, ImportError) and "cv2" not in sys.modules and "lib" in str(error):
        return f"OpenCV cannot be loaded: {error}; {HEADLESS}", ExitCode.USAGE
    if isinstance(error, MemoryError):
        return "there is not enough memory; --verbose tells where", ExitCode.USAGE
    return f"{type(error).__name__}: {error}; this is a fault of showface: --verbose tells where", ExitCode.USAGE
