"""What the verbs that prove parity share: the faces, and the printed table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..bundle import MANIFEST_FILE, default_bundle, open_bundle
from ..errors import UsageError


def real_faces(images: Path | None, masks: Path | None, image_size: int) -> tuple[Any, Any]:
    """Return real inputs (image, mask) from folders, else the default bundle's golden inputs."""
    from ..samples import read_samples

    if images is not None:
        return read_samples(images, masks, image_size)
    if masks is not None:
        raise UsageError("--masks needs --images")
    if not (default_bundle() / MANIFEST_FILE).is_file():
        raise UsageError("no default bundle to take golden inputs from; give --images DIR --masks DIR")
    default = open_bundle()
    if default.manifest.image_size != image_size:
        raise UsageError(
            f"the default bundle's golden inputs have side {default.manifest.image_size}, these networks take "
            f"{image_size}; give --images DIR --masks DIR"
        )
    golden = default.golden()
    return golden["image"], golden["mask"]


def print_parity(report: dict[str, Any]) -> None:
    """Print the figures of each stage and of the chain, and the verdict."""
    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    for name, figures in (*report["stages"].items(), ("chain", report["chain"])):
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    Console().print(table)
    Console().print("passed" if report["passed"] else "FAILED")
