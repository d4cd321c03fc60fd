"""The two libraries that build and run engines: which versions, and how a missing one is answered."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two libraries.

    Attributes:
        backend: its name as a backend.
        module: to import.
        extra: of showface that installs it.
        minimum: oldest version that is supported.
        below: first version that is not.
    """

    backend: str
    module: str
    extra: str
    minimum: tuple[int, int]
    below: tuple[int, int]


LIBRARIES = {
    library.backend: library
    for library in (
        Library("tensorrt", "tensorrt", "tensorrt", (10, 12), (12, 0)),
        Library("tensorrt-rtx", "tensorrt_rtx", "rtx", (1, 4), (2, 0)),
    )
}


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``1.7.1.116`` is (1, 7, 1, 116)."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].strip(".").split(".") if part)  # type: ignore[index]


def load_library(backend: str) -> Any:
    """Import the library of ``backend``.

    Raises:
        UsageError: it is not installed, cannot be loaded, or is of a version that is not supported.
    """
    library = LIBRARIES[backend]
    install = f"install it with: pip install 'showface[{library.extra}]'"
    try:
        module = importlib.import_module(library.module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{backend} needs {error.name}; {install}", "backend") from error
    except (ImportError, OSError) as error:
        raise UsageError(f"{library.module} cannot be loaded: {error}; {install}", "backend") from error
    if not library.minimum <= version_numbers(module.__version__)[:2] < library.below:
        wanted = f"≥ {'.'.join(map(str, library.minimum))}, < {'.'.join(map(str, library.below))}"
        raise UsageError(f"{library.module} {module.__version__} is not supported, only {wanted}; {install}")
    return module
