"""Verbs about engines: build and pack."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from showface.runtime.bundle import Bundle, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError

from .common import app, errors, load_extra

MIB = 2**20
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")]
EngineBackendOption = Annotated[str, typer.Option("--backend", help="tensorrt or tensorrt-rtx.")]
TargetOption = Annotated[list[str] | None, typer.Option("--target", help="sm_86 …; repeat it for several.")]
BatchOption = Annotated[int, typer.Option(help="Batch of the profile.")]


@app.command()
def build(
    bundle: BundleFolder,
    backend: EngineBackendOption,
    target: TargetOption = None,
    min_batch: BatchOption = 1,
    opt_batch: BatchOption = 1,
    max_batch: BatchOption = 8,
    check: Annotated[bool, typer.Option("--check", help="Parse only, and show what would not build.")] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let float32 products use TensorFloat-32.")] = False,
    workspace: Annotated[int | None, typer.Option(min=1, help="Limit of scratch memory on the device, MiB.")] = None,
    optimization_level: Annotated[int, typer.Option(help="0 to 5.")] = 3,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT: for any GPU from sm_80 on.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: for newer versions of the same major.")
    ] = False,
    host_memory: Annotated[int | None, typer.Option(min=64, help="Limit of the builder's process, MiB.")] = None,
) -> None:
    """Build the engines of a bundle, here or ahead of time for another GPU."""
    from showface.runtime.backends.cuda_devices import cuda_device
    from showface.runtime.backends.tensorrt.library import LIBRARIES, load_library

    if backend not in LIBRARIES:
        raise UsageError(f"--backend {backend}: use {' or '.join(LIBRARIES)}")
    opened = open_bundle(bundle)
    trt = load_library(backend)
    load_extra("polygraphy", LIBRARIES[backend].extra)
    builder: Any = load_extra("showface.export.engines.build", LIBRARIES[backend].extra)
    request: Any = load_extra("showface.export.engines.request", LIBRARIES[backend].extra)
    chooser: Any = load_extra("showface.export.engines.targets", LIBRARIES[backend].extra)
    device = cuda_device(0)
    targets = chooser.choose_targets(trt, backend, target or [], hardware_compatible, device)
    gpu = device.name if device is not None and backend == "tensorrt" else ""

    def options(chosen: str) -> Any:
        cache = None
        if backend == "tensorrt":
            name = f"{trt.__version__}-{re.sub(r'[^A-Za-z0-9]+', '_', gpu)}"
            cache = str(opened.folder / "engines" / f"timing-{name}.cache")
        return request.BuildOptions(
            backend=backend,
            target=chosen,
            batches=(min_batch, opt_batch, max_batch),
            tf32=tf32,
            optimization_level=optimization_level,
            workspace_mib=workspace,
            version_compatible=version_compatible,
            timing_cache=cache,
            host_memory_mib=host_memory,
        )

    every = [options(chosen) for chosen in targets]
    for one in every:
        one.check()
    if check:
        _check(opened, every)
        return
    rows: list[Any] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[phase]}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bars:
        for one in every:
            rows += builder.build_engines(opened, one, trt.__version__, gpu, _progress(bars, one.target))
    _report(opened, rows)


def _progress(bars: Progress, target: str) -> Callable[[str], Callable[[str, int, int], None]]:
    """Return, for a stage, what moves its bar."""

    def start(stage: str) -> Callable[[str, int, int], None]:
        bar = bars.add_task(f"{target} {stage}", total=None, phase="")

        def advance(phase: str, done: int, steps: int) -> None:
            bars.update(bar, completed=done, total=steps, phase=phase)

        return advance

    return start


def _report(bundle: Bundle, rows: list[Any]) -> None:
    """Print what was built, and fail where a stage failed.

    Raises:
        ShowfaceError: naming each stage that failed.
    """
    table = Table("target", "stage", "precision", "status", "MiB", "seconds")
    for row in rows:
        size = f"{row.engine_bytes / MIB:.1f}" if row.engine_bytes else ""
        seconds = f"{row.seconds:.1f}" if row.engine_bytes else ""
        table.add_row(row.target, row.stage, bundle.manifest.precision[row.stage], row.status, size, seconds)
    Console().print(table)
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        raise ShowfaceError("\n".join(f"{row.target}: {row.error}" for row in failed))
    if all(row.status == "current" for row in rows):
        errors.print("nothing to do: all engines are current")


def _check(bundle: Bundle, every: list[Any]) -> None:
    """Print the pre-flight table, and fail where a stage would not build."""
    preflight: Any = load_extra("showface.export.engines.preflight", "rtx")
    rows = [row for one in every for row in preflight.check_stages(bundle, one)]
    table = Table("target", "stage", "supported", "products", "offending nodes", "remedy")
    for row in rows:
        verdict = "yes" if row.supported else "NO"
        table.add_row(row.target, row.stage, verdict, row.dtypes, "\n".join(row.offending), row.remedy)
    Console().print(table)
    if not all(row.supported for row in rows):
        raise typer.Exit(1)


@app.command()
def pack(
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
    """Pack what a device needs, or a server: manifest, golden file, and engines, or the graphs to build them from."""
    if triton:
        from .triton import pack_repository

        serving = (backend or "onnxruntime", max_batch, instances, queue_delay, photo)
        pack_repository(bundle, output, serving, container_tensorrt, target or [])
        return
    from showface.runtime.device_kit import write_kit

    kit = write_kit(open_bundle(bundle), output, backend, target or [], graphs, overwrite)
    errors.print(f"{output}: {', '.join(kit.contents)}; {kit.size / MIB:.1f} MiB")
