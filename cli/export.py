"""``showface export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError

from .common import ImagesOption, MasksOption, app, load_extra
from .parity import print_parity, real_faces


@app.command()
def export(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Checkpoint of an assembled model; with --occluder also a bundle.")
    ],
    bundle: Annotated[Path, typer.Argument(help="Folder to create.")],
    images: ImagesOption = None,
    masks: MasksOption = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 around declared float32 islands.")] = "fp32",
    occluder: Annotated[
        Path | None, typer.Option(help="Checkpoint of the stage occluder, which finds what covers a face.")
    ] = None,
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch; or give a bundle an occluder."""
    if checkpoint.is_dir():
        _add_occluder(context, checkpoint, bundle, images, masks, occluder)
        return
    exporter: Any = load_extra("showface.export.bundle", "export")
    reader: Any = load_extra("showface.training.checkpoint", "export")
    faces = real_faces(images, masks, reader.read_checkpoint(checkpoint).config.image_size)
    report = exporter.export_bundle(checkpoint, bundle, faces, context.obj["threads"], precision, occluder)
    print_parity(report)
    if "float16" in report:
        _print_float16(report["float16"])


def _add_occluder(
    context: typer.Context,
    source: Path,
    destination: Path,
    images: Path | None,
    masks: Path | None,
    occluder: Path | None,
) -> None:
    """Copy a bundle and give it another occluder."""
    if occluder is None:
        raise UsageError(
            f"{source}: is a folder; name a checkpoint, or the occluder that this bundle gets (--occluder)"
        )
    adder: Any = load_extra("showface.export.occluder", "export")
    opened = open_bundle(source)
    faces = real_faces(images, masks, opened.manifest.image_size)
    figures = adder.add_occluder(opened, occluder, destination, faces, context.obj["threads"])
    print(
        f"occluder ({figures['precision']}): max abs {figures['max_abs']:.2e}, p99 abs {figures['p99_abs']:.2e} "
        f"against PyTorch over {figures['faces']} faces: passed; wrote {destination}"
    )


def _print_float16(report: dict[str, Any]) -> None:
    """Print how far the float16 graph is from the float32 one, and how much of it is float16."""
    table = Table("stage", "max abs", "p99 abs", "equal labels", "float16 weights", "float16 operators")
    for name, figures in report["stages"].items():
        shares = report["shares"][name]
        row = (f"{figures['max_abs']:.2e}", f"{figures['p99_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, f"{shares['weights']:.1%}", f"{shares['operators']:.1%}")
    console, chain = Console(), report["chain"]
    console.print("float16, graph parity with float32 in ONNX Runtime on the CPU (the worst face's labels)")
    console.print(table)
    figures = f"mean {chain['psnr_mean']:.1f} dB, worst {chain['psnr_worst']:.1f} dB over {report['faces']} faces"
    console.print(f"PSNR of the result in the hole: {figures}")
