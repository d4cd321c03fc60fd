"""``showface benchmark``: how fast a bundle is, alone or against another bundle, backend or PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from showface.runtime.backends import Backend
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError, system_errors

from .common import BackendOption, BundleArgument, DeviceOption, JsonOption, app, check_writable, errors, load_extra

if TYPE_CHECKING:
    from showface.evaluation.speed.subjects import ChainSubject


@app.command()
def benchmark(
    context: typer.Context,
    bundle: BundleArgument = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
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
    json_file: JsonOption = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write all latencies to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of the latencies to this file.")] = None,
) -> None:
    """Measure latency, throughput, start and memory; subjects run in turn, so that their ratios hold."""
    for option, path in (("--json", json_file), ("--csv", csv_file), ("--markdown", markdown), ("--plot", plot)):
        check_writable(option, path)
    if plot is not None:
        load_extra("matplotlib.figure", "report")
    if compiled and checkpoint is None:
        raise UsageError("--compile needs --checkpoint: the weights that PyTorch runs")
    sizes = _sizes(batches)
    from showface.evaluation.parity.sources import environment_of
    from showface.evaluation.speed.fresh_process import measure_fresh
    from showface.evaluation.speed.kernels import kernel_times
    from showface.evaluation.speed.measure import Plan, measure_batch, measure_phases
    from showface.evaluation.speed.tables import plot as draw
    from showface.evaluation.speed.tables import to_csv, to_markdown
    from showface.evaluation.speed.timing import available_threads, pin

    threads = context.obj["threads"] or available_threads()
    pin(threads)
    plan = Plan(sizes, rounds, warm_up)
    subjects: list[Any] = [_subject("bundle", bundle, backend, device, threads)]
    starts = [(subjects[0], backend, device)]
    if against is not None or against_backend is not None or against_device is not None:
        other = against_backend or backend, against_device or device
        subjects.append(_subject("against", against or bundle, *other, threads))
        starts.append((subjects[1], *other))
        given, wanted = ((s.bundle.manifest.variant, s.bundle.manifest.image_size) for s in (subjects[1], subjects[0]))
        if given != wanted:
            raise UsageError(f"--against {against}: {given} is another variant or image size than {wanted}")
    if kernels:
        for stage in subjects[0].bundle.manifest.stages:
            subjects[0].bundle.model(stage)  # a kit without graphs is refused now and not after the timing
    flops: dict[str, float] = {}
    yardstick = None
    if checkpoint is not None:
        baseline: Any = load_extra("showface.evaluation.speed.torch_subject", "export")
        extra, flops, weights = baseline.torch_subjects(checkpoint, compiled, threads)
        if weights != subjects[0].bundle.manifest.checkpoint_sha256:
            raise UsageError(
                f"{checkpoint}: {subjects[0].bundle.folder} was exported from other weights; export it from this file, "
                "or give the checkpoint that it came from"
            )
        subjects += extra
        yardstick = "matmul", baseline.matmul_task()
    first: ChainSubject = subjects[0]
    # The occluder is timed like a stage, where every subject has one: PyTorch's chain has none.
    with_occluder = checkpoint is None and all(subject.chain.occluder is not None for subject in subjects)
    stages = first.bundle.manifest.graphs if with_occluder else first.bundle.manifest.stages
    faces = first.bundle.golden()
    for subject in subjects:
        errors.print(f"{subject.name}: {subject.description}")
    measured = []
    for size in sizes:
        errors.print(f"batch {size} …")
        measured.append(measure_batch(subjects, stages, first.chain, faces, size, plan, yardstick))
    tensors = first.chain.run({name: faces[name][:1] for name in ("image", "mask")})
    fastest = measured[0]["yardstick"]
    result = {
        "schema_version": 1,
        "environment": environment_of(first.chain.description),
        "threads": threads,
        "plan": asdict(plan),
        "subjects": {subject.name: subject.description for subject in subjects},
        "batches": measured,
        "phases": measure_phases(first, faces, stages, first.chain, plan),
        "fresh": {
            f"{subject.name}, batch {size}": measure_fresh(subject.bundle.folder, runs_on, where, threads, size)
            for subject, runs_on, where in starts
            for size in sizes
        }
        if fresh
        else {},
        "flops": flops,
        "matmul_gflops": baseline.MATMUL_GFLOP / fastest["p50_ms"] * 1e3 if checkpoint is not None else None,
        "kernels": kernel_times(first.bundle, tensors, threads) if kernels else {},
    }
    text = to_markdown(result)
    _write(json_file, json.dumps(result, indent=2, allow_nan=False) + "\n")
    _write(csv_file, to_csv(result))
    _write(markdown, text)
    if plot is not None:
        with system_errors(UsageError, plot, "cannot be written"):
            plot.write_bytes(draw(result))
    print(text, end="")


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--batches {text}: give whole numbers above zero, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _subject(name: str, folder: Path | None, backend: str, device: str, threads: int) -> ChainSubject:
    from showface.evaluation.speed.subjects import ChainSubject
    from showface.runtime.backends import open_chain

    opened = open_bundle(folder)
    return ChainSubject(name, opened, open_chain(opened, backend, device, threads))


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with system_errors(UsageError, path, "cannot be written"):
            path.write_text(text, encoding="utf-8")
