"""``showface pack``: what a device needs, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.bundle import open_bundle

from ..options import BundleFolder, TargetOption
from ..printing import MIB, errors


def pack(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Argument(metavar="OUT.zip", help="File to write.")],
    backend: Annotated[str | None, typer.Option("--backend", help="tensorrt or tensorrt-rtx; default: both.")] = None,
    target: TargetOption = None,
    graphs: Annotated[
        bool | None, typer.Option("--graphs/--no-graphs", help="With the ONNX files; default: without engines only.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file.")] = False,
) -> None:
    """Pack what a device needs: manifest, golden file, and engines, or the graphs to build them from."""
    from showface.runtime.device_kit import write_kit

    kit = write_kit(open_bundle(bundle), output, backend, target or [], graphs, overwrite)
    errors.print(f"{output}: {', '.join(kit.contents)}; {kit.size / MIB:.1f} MiB")
