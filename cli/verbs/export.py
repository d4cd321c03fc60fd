"""``showface export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.errors import extra

from ..app import threads_of
from ..options import ImagesOption, MasksOption
from ..printing import print_parity


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of an assembled model.")],
    bundle: Annotated[Path, typer.Argument(help="Folder to create.")],
    images: ImagesOption = None,
    masks: MasksOption = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 around declared float32 islands.")] = "fp32",
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch."""
    with extra("export"):
        from showface.evaluation.faces import real_faces
        from showface.export.bundle import export_bundle
        from showface.training.checkpoint import read_checkpoint
    faces = real_faces(images, masks, read_checkpoint(checkpoint).config.image_size)
    report = export_bundle(checkpoint, bundle, faces, threads_of(context), precision)
    print_parity(report)
    if "float16" in report:
        print("float16, in ONNX Runtime on the CPU:")
        print_parity(report["float16"])
        for name, shares in report["float16"]["shares"].items():
            print(
                f"{name}: {shares['weights']:.1%} of the weights, {shares['operators']:.1%} of the operators in float16"
            )
