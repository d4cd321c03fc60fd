"""``showface benchmark``: how fast a bundle is, alone or against another bundle, backend or PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import default_bundle
from showface.runtime.errors import UsageError, extra
from showface.runtime.files import write_side

from ... import options
from ...app import threads_of
from ...printing import console


def benchmark(
    context: typer.Context,
    bundle: options.BundleArgument = None,
    backend: options.BackendOption = Backend.AUTO,
    device: options.DeviceOption = "auto",
    cuda_graph: options.CudaGraphOption = False,
    against: Annotated[Path | None, typer.Option(help="Time this bundle too, in turn.")] = None,
    against_backend: Annotated[Backend | None, typer.Option(help="Time on this backend too, in turn.")] = None,
    against_device: Annotated[str | None, typer.Option(help="Time on this device too, in turn.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Time PyTorch with these weights too, eagerly.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="With --checkpoint: torch.compile too.")] = False,
    batches: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8",
    rounds: Annotated[int, typer.Option(min=1, help="Runs on the clock.")] = 20,
    warm_up: Annotated[int, typer.Option(min=0, help="Runs before.")] = 3,
    kernels: Annotated[bool, typer.Option(help="Name the kernels of each stage (ONNX Runtime, CPU).")] = False,
    fresh: Annotated[bool, typer.Option(help="Measure start, load and peak memory in fresh processes.")] = True,
    json_file: options.JsonOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write all latencies to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of the latencies to this file.")] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Measure latency, throughput, start and memory; subjects run in turn, so that their ratios hold."""
    sides = {"--json": json_file, "--csv": csv_file, "--markdown": markdown, "--plot": plot}
    options.check_sides(sides, overwrite, bundle or default_bundle(), against, checkpoint)
    if plot is not None:
        with extra("report"):
            import matplotlib.figure  # noqa: F401 - is missed before the work
    if compiled and checkpoint is None:
        raise UsageError("--compile needs --checkpoint: the weights that PyTorch runs")
    sizes = _sizes(batches)
    from showface.evaluation.speed import benchmark as library
    from showface.evaluation.speed import tables
    from showface.evaluation.speed.measure import Schedule

    first, other = library.Candidate(bundle, backend, device, cuda_graph), None
    if against is not None or against_backend is not None or against_device is not None:
        other = library.Candidate(against or bundle, against_backend or backend, against_device or device)
    plan = Schedule(sizes, rounds, warm_up)
    result = library.run_benchmark(first, other, checkpoint, plan, threads_of(context), compiled, kernels, fresh)
    text = tables.to_markdown(result)
    console.print_lines(text)
    options.write_text(json_file, json.dumps(result, indent=2, allow_nan=False) + "\n", overwrite)
    options.write_text(csv_file, tables.to_csv(result), overwrite)
    options.write_text(markdown, text, overwrite)
    if plot is not None:
        write_side(plot, tables.plot(result), overwrite)


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--batches {text}: give whole numbers above zero, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))
