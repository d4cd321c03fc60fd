"""``showface build``: the engines of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from showface.runtime.bundle import Bundle, as_exported, open_bundle
from showface.runtime.errors import ShowfaceError, UsageError, extra

from ...app import threads_of
from ...options import BundleFolder, EngineBackendOption, TargetOption
from ...printing import MIB, errors, option_of, print_parity, tables
from ...progress import build_bars

if TYPE_CHECKING:
    from showface.export.engines.build import Built
    from showface.export.engines.request import BuildOptions

BatchOption = Annotated[int, typer.Option(help="Batch of the profile.")]
HardwareOption = Annotated[bool, typer.Option("--hardware-compatible", help="TensorRT: for any GPU from sm_80 on.")]
VersionOption = Annotated[
    bool, typer.Option("--version-compatible", help="TensorRT: for newer versions of the same major.")
]


def build(
    context: typer.Context,
    bundle: BundleFolder,
    backend: EngineBackendOption,
    target: TargetOption = None,
    min_batch: BatchOption = 1,
    opt_batch: Annotated[int | None, typer.Option(help="Batch that kernels are tuned for; default: the last.")] = None,
    max_batch: BatchOption = 8,
    check: Annotated[bool, typer.Option("--check", help="Parse only, and show what would not build.")] = False,
    precision: Annotated[
        str, typer.Option(help="as-is, or fp16: from BUNDLE-fp16, which is made if need be.")
    ] = "as-is",
    device: Annotated[str, typer.Option("--device", help="cuda:N that TensorRT builds on.")] = "cuda:0",
    tf32: Annotated[bool, typer.Option("--tf32", help="Let float32 products use TensorFloat-32.")] = False,
    workspace: Annotated[int | None, typer.Option(min=1, help="Limit of scratch memory on the device, MiB.")] = None,
    optimization_level: Annotated[int, typer.Option(help="0 to 5.")] = 3,
    hardware_compatible: HardwareOption = False,
    version_compatible: VersionOption = False,
    host_memory: Annotated[int | None, typer.Option(min=64, help="Limit of the builder's process, MiB.")] = None,
    profiles: Annotated[int, typer.Option(help="2: tune kernels for a single face apart from batches.")] = 1,
) -> None:
    """Build the engines of a bundle, here or ahead of time for another GPU."""
    from showface.runtime.backends import cuda_devices
    from showface.runtime.backends.cuda_devices import parse_device
    from showface.runtime.backends.tensorrt.library import LIBRARIES, load_library

    if backend not in LIBRARIES:
        raise UsageError(f"{backend} builds no engines; use {' or '.join(LIBRARIES)}", "backend")
    opened = as_exported(open_bundle(bundle), "engines are built from")
    trt, index = load_library(backend), parse_device(device)
    if index is None:
        raise UsageError(f"{device}: engines are built for a GPU; use cuda:N", "device")
    with extra(LIBRARIES[backend].extra):
        import polygraphy  # noqa: F401 - the builder's process needs it

        from showface.export.engines.request import BuildOptions, timing_cache_of
        from showface.export.engines.targets import choose_targets
    found = cuda_devices.cuda_device(index)
    targets = choose_targets(trt, backend, target or [], hardware_compatible, found)
    gpu = found.name if found is not None and backend == "tensorrt" else ""
    opened = opened if precision == "as-is" else _lowered(opened, precision, threads_of(context))
    first = BuildOptions(
        backend,
        targets[0],
        batches=(min_batch, max_batch if opt_batch is None else opt_batch, max_batch),
        tf32=tf32,
        optimization_level=optimization_level,
        workspace_mib=workspace,
        version_compatible=version_compatible,
        timing_cache=timing_cache_of(opened, trt.__version__, gpu) if backend == "tensorrt" else None,
        host_memory_mib=host_memory,
        device=index,
        profiles=profiles,
    )
    wanted = [replace(first, target=chosen) for chosen in targets]
    for options in wanted:
        options.check()
    if check:
        _check(opened, wanted)
    else:
        _build(opened, wanted, trt.__version__, gpu)


def _lowered(bundle: Bundle, precision: str, threads: int | None) -> Bundle:
    if precision != "fp16":
        raise UsageError(f"--precision {precision}: use as-is or fp16")
    from showface.export.engines.lowered import lowered_beside

    half = lowered_beside(bundle, threads)
    if half.report is not None:
        print_parity(half.report)
    made = "is there" if half.report is None else "was made"
    errors.print(f"engines go to {half.bundle.folder}, the float16 bundle that {made}")
    return half.bundle


def _build(bundle: Bundle, wanted: Sequence[BuildOptions], version: str, gpu: str) -> None:
    from showface.export.engines.build import build_engines

    rows: list[Built] = []
    for options in wanted:
        with build_bars(options.target) as bars:
            rows += build_engines(bundle, options, version, gpu, bars)
    _report(bundle, rows)


def _report(bundle: Bundle, rows: Sequence[Built]) -> None:
    """Print what was built, and fail where a stage failed, naming each."""
    table = Table("target", "stage", "precision", "status", "MiB", "seconds")
    for row in rows:
        size = f"{row.engine_bytes / MIB:.1f}" if row.engine_bytes else ""
        seconds = f"{row.seconds:.1f}" if row.engine_bytes else ""
        table.add_row(row.target, row.stage, bundle.manifest.precision[row.stage], row.status, size, seconds)
    tables.print(table)
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        more = "; --check lists all nodes that are refused" if any(row.refused > 1 for row in failed) else ""
        raise ShowfaceError("; ".join(f"{row.target}: {row.error}{_option(row.argument)}" for row in failed) + more)
    if all(row.status == "current" for row in rows):
        errors.print("nothing to do: all engines are current")


def _option(argument: str) -> str:
    return f" ({option_of(argument)})" if argument else ""


def _check(bundle: Bundle, wanted: Sequence[BuildOptions]) -> None:
    """Print the pre-flight table, and fail where a stage would not build."""
    from showface.export.engines.preflight import check_stages

    rows = [row for options in wanted for row in check_stages(bundle, options)]
    table = Table("target", "stage", "supported", "products", "offending nodes", "remedy")
    for row in rows:
        verdict = "yes" if row.supported else "NO"
        first, more = next(iter(row.offending), ""), len(row.offending) - 1
        named = f"{first} (and {more} more)" if more > 0 else first
        table.add_row(row.target, row.stage, verdict, row.dtypes, named, row.remedy + _option(row.argument))
    tables.print(table)
    if not all(row.supported for row in rows):
        raise typer.Exit(1)
