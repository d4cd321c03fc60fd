"""``showface export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import ImagesOption, MasksOption, app, load_extra
from .parity import print_parity, real_faces


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
    faces = real_faces(images, masks, reader.read_checkpoint(checkpoint).config.image_size)
    report = exporter.export_bundle(checkpoint, bundle, faces, context.obj["threads"])
    print_parity(report)
