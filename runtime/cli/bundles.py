"""Verbs about bundles: export, validate, info."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..bundle import MANIFEST_FILE, default_bundle, open_bundle
from ..errors import UsageError, system_errors
from ..version import __version__
from .common import (
    BundleArgument,
    DeviceOption,
    ImagesOption,
    JsonOption,
    MasksOption,
    app,
    check_writable,
    errors,
    load_extra,
)


@app.command()
def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of an assembled model.")],
    bundle: Annotated[Path, typer.Argument(help="Folder to create.")],
    images: ImagesOption = None,
    masks: MasksOption = None,
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch."""
    exporter: Any = load_extra("showface.export.bundle", "export")
    reader: Any = load_extra("showface.training.checkpoint", "export")
    faces = _faces(images, masks, reader.read_checkpoint(checkpoint).config.image_size)
    report = exporter.export_bundle(checkpoint, bundle, faces, context.obj["threads"])
    _print_parity(report)


@app.command()
def validate(
    context: typer.Context,
    bundle: BundleArgument = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Compare with PyTorch instead of the golden file.")] = None,
    images: ImagesOption = None,
    masks: MasksOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Prove that a bundle computes what PyTorch computed: each stage, then the chain."""
    from ..onnxruntime_backend import open_chain
    from ..parity import check_parity, golden_reference

    check_writable("--json", json_file)
    opened = open_bundle(bundle)
    threads = context.obj["threads"]
    if checkpoint is None:
        if images is not None or masks is not None:
            raise UsageError("--images and --masks need --checkpoint: only golden inputs have a reference of their own")
        chain = open_chain(opened, device, threads)
        errors.print(f"using {chain.description}, reference: golden.npz")
        report = check_parity(chain, [golden_reference(opened)])
    else:
        exporter: Any = load_extra("showface.export.bundle", "export")
        faces = _faces(images, masks, opened.manifest.image_size)
        report = exporter.checkpoint_parity(opened, checkpoint, faces, threads, device)
    if json_file is not None:
        with system_errors(UsageError, json_file, "cannot be written"):
            json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _print_parity(report)
    if not report["passed"]:
        raise typer.Exit(1)


@app.command()
def info(
    bundle: BundleArgument = None,
) -> None:
    """Show versions, devices, and what a bundle holds."""
    import onnxruntime

    from ..onnxruntime_backend import cuda_device_count

    opened = open_bundle(bundle)
    manifest = opened.manifest
    rows = [
        ("showface", __version__),
        ("python", sys.version.split()[0]),
        ("onnxruntime", f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())})"),
        ("CUDA devices", str(cuda_device_count())),
        ("bundle", str(opened.folder)),
        ("variant", f"{manifest.variant}, {manifest.image_size}×{manifest.image_size}"),
        ("checkpoint", manifest.checkpoint_sha256[:16]),
    ]
    for stage in manifest.stages:
        size = len(opened.model(stage)) / 2**20
        rows.append((f"  {stage.name}", f"{manifest.precision[stage.name]}, {size:.1f} MiB, hash checked"))
    for name, value in rows:
        print(f"{name:<13}{value}")  # a table would cut a long path


def _faces(images: Path | None, masks: Path | None, image_size: int) -> tuple[Any, Any]:
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


def _print_parity(report: dict[str, Any]) -> None:
    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    for name, figures in (*report["stages"].items(), ("chain", report["chain"])):
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    Console().print(table)
    Console().print("passed" if report["passed"] else "FAILED")
