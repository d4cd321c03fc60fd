"""``showface pack --triton``: a model repository for NVIDIA Triton."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError

from .common import errors, load_extra


def pack_repository(
    bundle: Path,
    output: Path,
    serving: tuple[str, int, int, int, bool],
    container_tensorrt: str | None,
    targets: Sequence[str],
) -> None:
    """Write the repository, and say what is in it; ``serving`` are the fields of the library's class of that name.

    Raises:
        UsageError: what was asked for does not go together or cannot be written.
    """
    if len(targets) > 1:
        raise UsageError(f"--triton: a repository holds the engines of one target, not of {', '.join(targets)}")
    repository: Any = load_extra("showface.export.triton.repository", "triton")
    chosen = repository.Serving(*serving)
    target = targets[0] if targets else None
    models = repository.write_repository(open_bundle(bundle), output, chosen, container_tensorrt, target)
    errors.print(f"{output}: {', '.join(models)}; start with: tritonserver --model-repository {output.resolve()}")
