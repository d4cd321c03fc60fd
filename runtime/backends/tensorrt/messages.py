"""What TensorRT says when it refuses something: one log a library, and a recorder whose text an error repeats."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

logger = logging.getLogger(__name__)
MAX_REASON = 600  # characters of TensorRT's own words in an error


def library_logger(trt: Any) -> Any:
    """Return the logger of a library, which writes its messages to standard error; all of them at debug level."""
    log = _library_log(trt)
    log.min_severity = trt.Logger.VERBOSE if logger.isEnabledFor(logging.DEBUG) else trt.Logger.ERROR
    return log


@functools.cache
def _library_log(trt: Any) -> Any:
    # The library keeps the first logger that it is given and warns of every other one.
    return trt.Logger(trt.Logger.ERROR)


def error_recorder(trt: Any) -> Any:
    """Return a recorder of errors; engines and contexts inherit their runtime's.

    Its ``take()`` returns what was recorded since, as one text, and forgets it. Whoever sets it on an object keeps a
    reference, since the library may not.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[tuple[Any, str]] = []
            self._lock = threading.Lock()  # TensorRT calls it from any thread

        def clear(self) -> None:
            with self._lock:
                self.errors.clear()

        def num_errors(self) -> int:
            return len(self.errors)

        def get_error_code(self, index: int) -> Any:
            return self.errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.errors[index][1]

        def has_overflowed(self) -> bool:
            return False

        def report_error(self, code: Any, description: str) -> bool:
            with self._lock:
                self.errors.append((code, description))
            return False  # the library goes on as it thinks right

        def take(self) -> str:
            with self._lock:
                said = "; ".join(dict.fromkeys(description for _, description in self.errors))
                self.errors.clear()
            return " ".join(said.split())[:MAX_REASON]

    return Recorder()
