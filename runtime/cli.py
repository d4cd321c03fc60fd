"""The command line: ``showface VERB``. Exit codes: 0 good, 1 something failed, 2 usage or set-up."""

from __future__ import annotations

import json
import logging
import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .bundle import MANIFEST_FILE, default_bundle, open_bundle
from .errors import ShowfaceError, UsageError
from .version import __version__

app = typer.Typer(
    help="Complete the hidden parts of aligned faces with MDRNets.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


class Backend(StrEnum):
    """Inference backends."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"


BundleOption = Annotated[Path | None, typer.Option("--bundle", help="Bundle folder; default: the one shipped.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Real faces; default: the golden inputs.")]
MasksOption = Annotated[Path | None, typer.Option("--masks", help="Mask file, or folder of masks by stem.")]


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and show tracebacks.")] = False,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all.")] = None,
) -> None:
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING)
    context.obj = {"threads": threads, "verbose": verbose}


@app.command()
def inpaint(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder (recursive).")],
    output: Annotated[Path, typer.Argument(help="A folder; for one image also an image name.")],
    masks: MasksOption = None,
    mask_from: Annotated[str, typer.Option(help="file, alpha or color:#RRGGBB.")] = "file",
    bundle: BundleOption = None,
    backend: Annotated[Backend, typer.Option(help="Inference backend.")] = Backend.AUTO,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Faces a batch.")] = 8,
    overwrite: Annotated[bool, typer.Option(help="Replace files that no earlier run wrote.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of input, mask and result of each face.")] = None,
) -> None:
    """Complete the holes of aligned square faces."""
    from .folder import plan_jobs, process
    from .inpainter import Inpainter
    from .masks import mask_source
    from .results import RESULTS_FILE, Result

    mask_origin = mask_source(mask_from, masks)
    jobs = plan_jobs(source, output, masks)
    single = source.is_file() and jobs[0].output == output
    log = None if single else output / RESULTS_FILE
    inpainter = Inpainter.from_bundle(bundle, device, context.obj["threads"])
    errors.print(f"using {inpainter.chain.description}")
    if log is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{output}: cannot be made: {error.strerror}") from error
    caught = _catch_signals()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("inpaint", total=len(jobs))

        def report(result: Result) -> None:
            progress.advance(bar)
            if result.error:
                progress.console.print(f"failed: {result.error}", markup=False)

        results = process(jobs, inpainter, mask_origin, batch_size, overwrite, log, report, lambda: bool(caught))
    count = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
    where = output if log is None else log
    errors.print(", ".join(f"{n} {status}" for status, n in count.items()) + f"; see {where}")
    if sheet is not None:
        from .sheet import write_sheet

        write_sheet(sheet, results, source, mask_origin)
    if caught:
        raise typer.Exit(128 + caught[0])
    if count["failed"]:
        raise typer.Exit(1)


def _catch_signals() -> list[int]:
    """Turn SIGINT and SIGTERM into a request that is honoured between batches."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return caught


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="parser, coarse or mdrnet.")],
    config: Annotated[Path, typer.Option(help="TOML file; see training/configs.")],
    data: Annotated[Path, typer.Option(help="Folder that the config's paths are relative to.")] = Path(),
    output: Annotated[Path | None, typer.Option(help="Default: runs/STAGE.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    resume: Annotated[bool, typer.Option(help="Continue the run in the output folder.")] = False,
) -> None:
    """Train one stage."""
    torch: Any = _extra("torch", "train")
    loop: Any = _extra("showface.training.loop", "train")
    settings: Any = _extra("showface.training.config", "train")

    loop.train(
        stage,
        settings.config_from_toml(settings.TrainConfig, config),
        data,
        output or Path("runs") / stage,
        resume,
        torch.device(device),
    )


@app.command()
def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of an assembled model.")],
    bundle: Annotated[Path, typer.Argument(help="Folder to create.")],
    images: ImagesOption = None,
    masks: MasksOption = None,
) -> None:
    """Trace a checkpoint to an ONNX bundle and prove that it equals PyTorch."""
    exporter: Any = _extra("showface.export.bundle", "export")
    report = exporter.export_bundle(checkpoint, bundle, _faces(images, masks), context.obj["threads"])
    _print_parity(report)


@app.command()
def validate(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Argument(help="Bundle folder; default: the one shipped.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Compare with PyTorch instead of the golden file.")] = None,
    images: ImagesOption = None,
    masks: MasksOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Prove that a bundle computes what PyTorch computed: each stage, then the chain."""
    from .onnxruntime_backend import open_chain
    from .parity import check_parity, golden_reference

    opened = open_bundle(bundle)
    if checkpoint is None:
        if images is not None:
            raise UsageError("--images needs --checkpoint: without PyTorch only the golden inputs have a reference")
        chain = open_chain(opened, device, context.obj["threads"])
        errors.print(f"using {chain.description}, reference: golden.npz")
        report = check_parity(chain, [golden_reference(opened)])
    else:
        exporter: Any = _extra("showface.export.bundle", "export")
        report = exporter.checkpoint_parity(opened, checkpoint, _faces(images, masks), context.obj["threads"])
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _print_parity(report)
    if not report["passed"]:
        raise typer.Exit(1)


@app.command()
def info(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle folder; default: the one shipped.")] = None,
) -> None:
    """Show versions, devices, and what a bundle holds."""
    import onnxruntime

    from .onnxruntime_backend import cuda_device_count

    table = Table(show_header=False, box=None)
    table.add_row("showface", __version__)
    table.add_row("python", sys.version.split()[0])
    table.add_row("onnxruntime", f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())})")
    table.add_row("CUDA devices", str(cuda_device_count()))
    opened = open_bundle(bundle)
    manifest = opened.manifest
    table.add_row("bundle", str(opened.folder))
    table.add_row("variant", f"{manifest.variant}, {manifest.image_size}×{manifest.image_size}")
    table.add_row("checkpoint", manifest.checkpoint_sha256[:16])
    for stage in manifest.stages:
        size = len(opened.model(stage)) / 2**20
        table.add_row(f"  {stage.name}", f"{manifest.precision[stage.name]}, {size:.1f} MiB, hash checked")
    Console().print(table)


def _extra(module: str, extra: str) -> Any:
    """Import a module of an optional extra; a missing one is answered with the command that mends it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("showface"):
            raise
        raise UsageError(f"this needs {error.name}; install it with: pip install 'showface[{extra}]'") from error


def _faces(images: Path | None, masks: Path | None) -> tuple[Any, Any]:
    """Return real inputs (image, mask) from folders, else the default bundle's golden inputs."""
    from .samples import read_samples

    if images is not None:
        return read_samples(images, masks)
    if not (default_bundle() / MANIFEST_FILE).is_file():
        raise UsageError("no default bundle to take golden inputs from; give --images DIR --masks DIR")
    golden = open_bundle().golden()
    return golden["image"], golden["mask"]


def _print_parity(report: dict[str, Any]) -> None:
    table = Table("stage", "max abs", "mean abs", "equal labels", "verdict")
    for name, figures in (*report["stages"].items(), ("chain", report["chain"])):
        verdict = "passed" if figures["passed"] else "FAILED"
        row = (f"{figures['max_abs']:.2e}", f"{figures['mean_abs']:.2e}", f"{figures['agreement']:.4%}")
        table.add_row(name, *row, verdict)
    Console().print(table)
    Console().print("passed" if report["passed"] else "FAILED")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:] if arguments is None else [*arguments, *sys.argv[1:]]
    try:
        app(args=arguments)
    except ShowfaceError as error:
        if "--verbose" in arguments:
            raise
        errors.print(f"error: {error}", markup=False)
        default = 2 if isinstance(error, UsageError) else 1
        sys.exit(getattr(error, "exit_code", default))


if __name__ == "__main__":
    main()
