"""``showface pack``: what a device needs, in one file; or what Triton needs, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.bundle import open_bundle
from showface.runtime.errors import extra

from ...options import BundleFolder, TargetOption, refuse_idle
from ...printing import MIB, errors


def pack(
    context: typer.Context,
    bundle: BundleFolder,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Zip file to write; with --triton a folder.")],
    backend: Annotated[str | None, typer.Option("--backend", help="tensorrt or tensorrt-rtx; default: both.")] = None,
    target: TargetOption = None,
    graphs: Annotated[
        bool | None, typer.Option("--graphs/--no-graphs", help="With the ONNX files; default: without engines only.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file.")] = False,
    triton: Annotated[bool, typer.Option("--triton", help="Write a model repository for Triton.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, help="--triton: greatest batch.")] = 8,
    instances: Annotated[int, typer.Option(min=1, help="--triton: instances of each model, per device.")] = 1,
    queue_delay: Annotated[int, typer.Option(min=0, help="--triton: µs a stage waits for a batch to fill.")] = 1000,
    photo: Annotated[bool, typer.Option("--photo", help="--triton: with a model that takes whole pictures.")] = False,
    container_tensorrt: Annotated[
        str | None, typer.Option(help="--triton --backend tensorrt: version of TensorRT in the container.")
    ] = None,
) -> None:
    """Pack what a device or a server needs: manifest, golden file, and engines, or the graphs to build them from."""
    if triton:
        refuse_idle(context, "--triton writes a new folder with all that Triton needs", "graphs", "overwrite")
        if backend != "tensorrt":
            refuse_idle(context, "only --backend tensorrt takes engines along", "target", "container_tensorrt")
        with extra("triton"):
            from showface.export.triton.config import Serving
            from showface.export.triton.repository import write_repository

        serving = Serving(backend or "onnxruntime", max_batch, instances, queue_delay, photo)
        models = write_repository(open_bundle(bundle), output, serving, container_tensorrt, target or [])
        errors.print(f"{output}: {', '.join(models)}; start with: tritonserver --model-repository {output.resolve()}")
        return
    for_triton = ("max_batch", "instances", "queue_delay", "photo", "container_tensorrt")
    refuse_idle(context, "without --triton a zip for a device is written", *for_triton)
    from showface.runtime.device_kit import write_kit

    kit = write_kit(open_bundle(bundle), output, backend, target or [], graphs, overwrite)
    errors.print(f"{output}: {', '.join(kit.contents)}; {kit.size / MIB:.1f} MiB")
