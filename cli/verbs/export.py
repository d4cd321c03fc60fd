"""``showface export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError, extra

from ..app import threads_of
from ..options import ImagesOption, MasksOption
from ..printing import print_parity, printable


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
    with extra("export"):
        from showface.evaluation.faces import real_faces
        from showface.export.bundle import export_bundle
        from showface.export.occluder import add_occluder
        from showface.training.checkpoint import read_checkpoint
    if checkpoint.is_dir():
        if occluder is None:
            raise UsageError(f"{checkpoint}: is a folder; name a checkpoint, or with --occluder what this bundle gets")
        source = open_bundle(checkpoint)
        faces = real_faces(images, masks, source.manifest.image_size)
        figures = add_occluder(source, occluder, bundle, faces, threads_of(context))
        print(
            f"occluder ({figures['precision']}): max abs {figures['max_abs']:.2e}, p99 abs {figures['p99_abs']:.2e} "
            f"against PyTorch over {figures['faces']} faces: passed; wrote {printable(str(bundle))}"
        )
        return
    faces = real_faces(images, masks, read_checkpoint(checkpoint).config.image_size)
    report = export_bundle(checkpoint, bundle, faces, threads_of(context), precision, occluder)
    print_parity(report)
    if "float16" in report:
        print("float16, in ONNX Runtime on the CPU:")
        print_parity(report["float16"])
        for name, shares in report["float16"]["shares"].items():
            print(
                f"{name}: {shares['weights']:.1%} of the weights, {shares['operators']:.1%} of the operators in float16"
            )
