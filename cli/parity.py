"""What the verbs that prove parity share: the two sides, the faces, and the printed table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from showface.runtime.bundle import MANIFEST_FILE, default_bundle, open_bundle
from showface.runtime.errors import UsageError

from .common import load_extra

if TYPE_CHECKING:
    from showface.evaluation.parity.sources import Source


def open_source(path: Path | None, backend: str, device: str, threads: int | None) -> Source:
    """Open one side of a comparison: a checkpoint file, a folder of saved outputs, or a bundle.

    Raises:
        UsageError: it is none of these, or cannot be loaded.
    """
    from showface.evaluation.parity.saved_outputs import OUTPUTS_FILE, open_outputs
    from showface.evaluation.parity.sources import source_of_bundle
    from showface.runtime.backends import open_chain

    if path is not None and path.is_file():
        exporter: Any = load_extra("showface.evaluation.parity.torch_source", "export")
        source: Source = exporter.source_of_checkpoint(path, threads)
        return source
    if path is not None and (path / OUTPUTS_FILE).is_file():
        return open_outputs(path)
    bundle = open_bundle(path)
    return source_of_bundle(bundle, open_chain(bundle, backend, device, threads))


def real_faces(images: Path | None, masks: Path | None, image_size: int) -> tuple[Any, Any]:
    """Return real inputs (image, mask) from folders, else the default bundle's golden inputs."""
    from showface.evaluation.samples import read_samples

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
    """Print the figures of each stage and of the chain, what failed, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    for name, figures in (*report["stages"].items(), ("chain", report["chain"])):
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    console.print(table)
    for name, figures in (*report["stages"].items(), ("chain", report["chain"])):
        for failure in figures["failures"]:
            console.print(f"{name}: {failure}", soft_wrap=True)
    for sentence in report.get("not_compared", []):
        console.print(sentence, soft_wrap=True)
    if not report["stages"]:
        console.print("the stages were not compared alone: neither side can run them")
    for found in report.get("attribution", []):
        console.print(f"{found['stage']}: {found['sentence']}", soft_wrap=True)
    console.print("passed" if report["passed"] else "FAILED")
