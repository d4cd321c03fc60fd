"""``showface build``: the engines of a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from showface.runtime.bundle import Bundle, open_bundle
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
    opened, trt, index = open_bundle(bundle), load_library(backend), parse_device(device)
    if index is None:
        raise UsageError(f"{device}: engines are built for a GPU; use cuda:N", "device")
    with extra(LIBRARIES[backend].extra):
        import polygraphy  # noqa: F401 - the builder's process needs it

        from showface.export.engines.request import BuildOptions
        from showface.export.engines.targets import choose_targets
    found = cuda_devices.cuda_device(index)
    targets = choose_targets(trt, backend, target or [], hardware_compatible, found)
    gpu = found.name if found is not None and backend == "tensorrt" else ""
    if precision != "as-is":
        opened = _lowered(opened, precision, threads_of(context))
    cache = _timing_cache(opened, trt.__version__, gpu) if backend == "tensorrt" else None
    batches = (min_batch, max_batch if opt_batch is None else opt_batch, max_batch)
    shared = (tf32, optimization_level, workspace, version_compatible, cache, host_memory, index, profiles)
    wanted = [BuildOptions(backend, chosen, batches, *shared) for chosen in targets]
    for options in wanted:
        options.check()
    if check:
        _check(opened, wanted)
    else:
        _build(opened, wanted, trt.__version__, gpu)


def _lowered(bundle: Bundle, precision: str, threads: int | None) -> Bundle:
    """Return the float16 bundle of the same weights beside ``bundle``, which is made where there is none."""
    if precision != "fp16":
        raise UsageError(f"--precision {precision}: use as-is or fp16")
    folder = bundle.folder.with_name(f"{bundle.folder.resolve().name}-fp16")
    if folder.exists():
        half = open_bundle(folder)
        precisions = set(half.manifest.precision.values())
        if precisions != {"float16"} or half.manifest.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
            raise UsageError(f"{folder}: is no float16 bundle of these weights; remove it or rename {bundle.folder}")
        errors.print(f"engines go to {folder}, the float16 bundle that is there")
        return half
    with extra("export"):
        from showface.export.float16_bundle import export_float16
    print_parity(export_float16(bundle, folder, threads=threads))
    errors.print(f"engines go to {folder}, the float16 bundle that was made")
    return open_bundle(folder)


def _timing_cache(bundle: Bundle, version: str, gpu: str) -> str:
    name = f"{version}-{re.sub(r'[^A-Za-z0-9]+', '_', gpu)}"
    return str(bundle.folder / "engines" / f"timing-{name}.cache")


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
