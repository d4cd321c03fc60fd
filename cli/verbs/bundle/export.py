"""``showface export``: a checkpoint becomes a bundle, and a bundle a float16 one or a single ONNX file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from showface.runtime.bundle import MANIFEST_FILE, Bundle, open_bundle
from showface.runtime.errors import UsageError, extra

from ...app import threads_of
from ...options import ImagesOption, MasksOption, refuse_idle
from ...printing import MIB, console, errors, print_parity

DERIVING = ("images", "masks", "precision", "stages", "occluder")
ONE_FILE = ".onnx"
CHECKPOINT = ".safetensors"
SourceArgument = Annotated[Path, typer.Argument(help="Checkpoint of an assembled model, or a bundle.")]
OccluderOption = Annotated[
    Path | None, typer.Option(help="Checkpoint of the stage occluder, which finds what covers a face.")
]


def export(
    context: typer.Context,
    source: SourceArgument,
    output: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder to create; OUT.onnx: one joined file; OUT.safetensors: checkpoint."),
    ],
    images: ImagesOption = None,
    masks: MasksOption = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 around declared float32 islands.")] = "fp32",
    stages: Annotated[str | None, typer.Option(help="OUT.safetensors: networks to keep, as coarse,parser.")] = None,
    occluder: OccluderOption = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="A copy whose graphs are faster on a CPU; alone, and of a float32 bundle.")
    ] = False,
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch; or derive one from a bundle.

    A float32 bundle needs no checkpoint for its float16 bundle (--precision fp16) or for one that is faster on a CPU
    (--cpu), and it gives its weights back as a checkpoint (OUT.safetensors), from which training goes on. Any bundle
    can become one joined file (OUT.onnx); all but those of --cpu can get another occluder (--occluder).
    """
    with extra("export"):
        from showface.export.float16_bundle import check_precision
    check_precision(precision)
    if (source / MANIFEST_FILE).is_file():
        if cpu:
            refuse_idle(context, "--cpu rewrites the bundle as it is, and compares on its golden faces", *DERIVING)
            _to_cpu_form(open_bundle(source), output, threads_of(context))
            return
        _derive(context, open_bundle(source), output, stages, occluder, (images, masks), precision)
        return
    _refuse_stages(stages)
    if source.is_dir():
        raise UsageError(f"{source}: is neither a checkpoint nor a bundle; it has no {MANIFEST_FILE}")
    if cpu and source.exists():
        raise UsageError(f"--cpu: rewrites a bundle, and {source} is none; export it to one without --cpu first")
    if output.suffix == ONE_FILE:
        raise UsageError(f"{output}: one file is made from a bundle; export {source} to a folder first")
    if output.suffix == CHECKPOINT:
        raise UsageError(
            f"{output}: a checkpoint is made from a bundle, and {source} is none; give a bundle, or a folder to create"
        )
    with extra("export"):
        from showface.evaluation.faces import real_faces
        from showface.export.bundle import export_bundle
        from showface.training.checkpoint import read_checkpoint
    faces = real_faces(images, masks, read_checkpoint(source).config.image_size)
    report = export_bundle(source, output, faces, threads_of(context), precision, occluder)
    print_parity(report)
    if "float16" in report:
        _print_float16(report["float16"])


def _derive(
    context: typer.Context,
    source: Bundle,
    output: Path,
    stages: str | None,
    occluder: Path | None,
    folders: tuple[Path | None, Path | None],
    precision: str,
) -> None:
    """Make of a bundle what the options ask for; refuse those that would do nothing."""
    if output.suffix == CHECKPOINT:
        why = f"{output} gets the weights of the bundle as they are"
        refuse_idle(context, why, "images", "masks", "precision", "occluder")
        _to_checkpoint(source, output, stages)
        return
    _refuse_stages(stages)
    if occluder is not None:
        refuse_idle(context, "the occluder takes the precision of the bundle's stages", "precision")
        _give_occluder(source, occluder, output, folders, threads_of(context))
        return
    if precision == "fp32":
        refuse_idle(context, "only a float16 bundle is compared on faces of your own", "images", "masks")
    _from_bundle(source, output, folders, precision, threads_of(context))


def _to_cpu_form(source: Bundle, output: Path, threads: int | None) -> None:
    if output.suffix in (ONE_FILE, CHECKPOINT):
        raise UsageError(f"{output}: --cpu makes a bundle; name a folder")
    with extra("export"):
        from showface.export.cpu_form.bundle import export_cpu_form
    differences = export_cpu_form(source, output, threads)
    found = ", ".join(f"{stage} {difference:.1e}" for stage, difference in differences.items())
    console.print(f"largest difference from {source.folder}: {found}; wrote {output}")


def _refuse_stages(stages: str | None) -> None:
    if stages is not None:
        raise UsageError(f"--stages {stages}: chooses what a checkpoint OUT{CHECKPOINT} of a bundle keeps")


def _to_checkpoint(source: Bundle, output: Path, stages: str | None) -> None:
    with extra("export"):
        from showface.export.to_checkpoint import checkpoint_from_bundle
    if output.exists():
        raise UsageError(f"{output}: exists already; remove it or choose another name")
    checkpoint_from_bundle(source, output, None if stages is None else stages.split(","))
    errors.print(f"{output}: written; name it in a config's 'init' to train on from it")


def _from_bundle(
    source: Bundle, output: Path, folders: tuple[Path | None, Path | None], precision: str, threads: int | None
) -> None:
    with extra("export"):
        from showface.evaluation.faces import real_faces
        from showface.export.float16_bundle import export_float16
        from showface.export.one_file import export_one_file
    one_file = output.suffix == ONE_FILE
    if precision == "fp32":
        if not one_file:
            raise UsageError(
                f"{source.folder}: is a bundle already; add --cpu, --precision fp16 or --occluder, or name a file "
                f"OUT{ONE_FILE} or OUT{CHECKPOINT}"
            )
        _print_one_file(output, export_one_file(source, output, threads))
        return
    faces = None if folders == (None, None) else real_faces(*folders, source.manifest.image_size)
    if not one_file:
        _print_float16(export_float16(source, output, faces, threads))
        return
    with tempfile.TemporaryDirectory(prefix="showface-export-") as folder:
        half = Path(folder) / "float16"
        _print_float16(export_float16(source, half, faces, threads))
        _print_one_file(output, export_one_file(open_bundle(half), output, threads))


def _give_occluder(
    source: Bundle,
    occluder: Path,
    output: Path,
    folders: tuple[Path | None, Path | None],
    threads: int | None,
) -> None:
    if output.suffix == ONE_FILE:
        raise UsageError(f"{output}: one file holds the chain alone; give a folder with --occluder")
    with extra("export"):
        from showface.evaluation.faces import real_faces
        from showface.export.occluder import add_occluder
    figures = add_occluder(source, occluder, output, real_faces(*folders, source.manifest.image_size), threads)
    console.print(
        f"occluder ({figures['precision']}): max abs {figures['max_abs']:.2e}, p99 abs {figures['p99_abs']:.2e} "
        f"against PyTorch over {figures['faces']} faces: passed; wrote {output}"
    )


def _print_one_file(path: Path, facts: Mapping[str, Any]) -> None:
    size = f"{facts['bytes'] / MIB:.1f} MiB"
    errors.print(f"{path}: {facts['nodes']} nodes, {size}; {facts['faces']} golden faces equal the bundle's bit by bit")


def _print_float16(report: Mapping[str, Any]) -> None:
    console.print("float16, in ONNX Runtime on the CPU:")
    print_parity(report)
    for name, shares in report["shares"].items():
        console.print(
            f"{name}: {shares['weights']:.1%} of the weights, {shares['operators']:.1%} of the operators in float16"
        )
