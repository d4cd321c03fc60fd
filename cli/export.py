"""``showface export``: a checkpoint becomes a bundle, and a bundle a float16 one or a single ONNX file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from showface.runtime.bundle import MANIFEST_FILE, Bundle, open_bundle
from showface.runtime.errors import UsageError

from .common import ImagesOption, MasksOption, app, errors, load_extra
from .parity import print_parity, real_faces

ONE_FILE = ".onnx"


@app.command()
def export(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Checkpoint of an assembled model, or a float32 bundle.")],
    bundle: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create, or OUT.onnx for one joined file.")],
    images: ImagesOption = None,
    masks: MasksOption = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 around declared float32 islands.")] = "fp32",
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch; or derive one from a bundle.

    From a float32 bundle come, without its checkpoint, a float16 bundle (--precision fp16) and one joined file
    (OUT.onnx).
    """
    if (source / MANIFEST_FILE).is_file():
        _from_bundle(open_bundle(source), bundle, images, masks, precision, context.obj["threads"])
        return
    if source.is_dir():
        raise UsageError(f"{source}: is neither a checkpoint nor a bundle; it has no {MANIFEST_FILE}")
    if bundle.suffix == ONE_FILE:
        raise UsageError(f"{bundle}: one file is made from a bundle; export {source} to a folder first")
    exporter: Any = load_extra("showface.export.bundle", "export")
    reader: Any = load_extra("showface.training.checkpoint", "export")
    faces = real_faces(images, masks, reader.read_checkpoint(source).config.image_size)
    report = exporter.export_bundle(source, bundle, faces, context.obj["threads"], precision)
    print_parity(report)
    if "float16" in report:
        print_float16(report["float16"])


def _from_bundle(
    source: Bundle, output: Path, images: Path | None, masks: Path | None, precision: str, threads: int | None
) -> None:
    joiner: Any = load_extra("showface.export.one_file", "export")
    lowerer: Any = load_extra("showface.export.float16_bundle", "export")
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"--precision {precision}: use one of fp32, fp16")
    lowerer.check_new(output)
    one_file = output.suffix == ONE_FILE
    if not one_file and precision == "fp32":
        raise UsageError(
            f"{source.folder}: is a bundle already; add --precision fp16, or give a name that ends in .onnx"
        )
    if precision == "fp32":
        _print_one_file(output, joiner.export_one_file(source, output, threads))
        return
    faces = real_faces(images, masks, source.manifest.image_size)
    if not one_file:
        print_float16(lowerer.export_float16(source, output, faces, threads))
        return
    with tempfile.TemporaryDirectory(prefix="showface-export-") as folder:
        half = Path(folder) / "float16"
        print_float16(lowerer.export_float16(source, half, faces, threads))
        _print_one_file(output, joiner.export_one_file(open_bundle(half), output, threads))


def _print_one_file(path: Path, facts: dict[str, Any]) -> None:
    size = f"{facts['bytes'] / 2**20:.1f} MiB"
    errors.print(
        f"{path}: {facts['nodes']} nodes, {size}; {facts['faces']} golden faces come out bit by bit as from the bundle"
    )


def print_float16(report: dict[str, Any]) -> None:
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
