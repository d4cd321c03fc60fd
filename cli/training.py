"""Verbs about training: train, evaluate, diagnose, ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from showface.runtime.errors import UsageError, system_errors

from .common import DeviceOption, JsonOption, app, check_picture, check_writable, load_extra

ConfigOption = Annotated[Path, typer.Option(help="TOML file; see training/configs.")]
TrainConfigOption = Annotated[Path, typer.Option("--config", help="TOML file, for all a recipe; see training/configs.")]
DataOption = Annotated[Path, typer.Option(help="Folder that the config's paths are relative to.")]
TrainDeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
DevicesOption = Annotated[int, typer.Option(min=1, help="Processes, one a device; torchrun decides it when used.")]
TestImagesOption = Annotated[Path, typer.Option("--images", help="Folder of aligned faces.")]
TestMasksOption = Annotated[Path, typer.Option("--masks", help="Folder of ratio bins (00-10 …), white = hole.")]
FeaturesOption = Annotated[
    Path | None, typer.Option("--features", help="Weights for the Fréchet distance: FID's Inception, or VGG-16.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Faces a bucket; default: all.")]


def _open_run(context: typer.Context, config: Path, device: str, devices: int) -> tuple[Any, Any]:
    """Read a run's config and start Fabric for it."""
    reader: Any = load_extra("showface.training.config_reader", "train")
    settings: Any = load_extra("showface.training.config", "train")
    run = reader.config_from_toml(settings.TrainConfig, config)
    _set_threads(context)
    return run, load_extra("showface.training.loop", "train").make_fabric(device, devices, run.precision)


def _set_threads(context: typer.Context) -> None:
    """Let torch compute with the threads that were asked for; each process does so."""
    if context.obj["threads"] is not None:
        load_extra("torch", "train").set_num_threads(context.obj["threads"])


@app.command()
def train(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help="parser, layout, coarse, reconstruction, mdrnet, occluder; or all.")],
    config: TrainConfigOption,
    data: DataOption = Path(),
    output: Annotated[Path | None, typer.Option(help="Default: runs/STAGE; runs for all.")] = None,
    device: TrainDeviceOption = "cpu",
    devices: DevicesOption = 1,
    resume: Annotated[bool, typer.Option(help="Continue the run in the output folder.")] = False,
) -> None:
    """Train one stage, or all by a recipe; also: torchrun --nproc-per-node N -m showface.training STAGE …."""
    if stage == "all":
        recipe: Any = load_extra("showface.training.recipe", "train")
        runs = recipe.read_recipe(config, data, output or Path("runs"))
        _set_threads(context)
        recipe.train_all(runs, data, resume, device, devices)
        return
    loop: Any = load_extra("showface.training.loop", "train")
    run, fabric = _open_run(context, config, device, devices)
    loop.train(stage, run, data, output or Path("runs") / stage, resume, fabric)


evaluate_app = typer.Typer(invoke_without_command=True)
app.add_typer(evaluate_app, name="evaluate")


@evaluate_app.callback()
def evaluate(
    context: typer.Context,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of aligned faces.")] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="Folder of ratio bins (00-10 …), white = hole.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Measure this bundle.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure this checkpoint.")] = None,
    results: Annotated[Path | None, typer.Option(help="Measure DIR/<bucket>/<stem>.png of any other method.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Measure telea or navier-stokes.")] = None,
    features: FeaturesOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the best, median and worst faces.")] = None,
) -> None:
    """Measure L1 %, PSNR, SSIM and a Fréchet distance per bucket of hole ratio (paper's Table 1); or: occluder."""
    if context.invoked_subcommand is not None:
        return
    if images is None or masks is None:
        raise UsageError("give the faces and their masks: --images DIR --masks DIR")
    check_writable("--json", json_file)
    check_picture("--sheet", sheet)
    evaluation: Any = load_extra("showface.evaluation.quality.evaluate", "train")
    table = evaluation.run_evaluation(
        bundle=bundle,
        checkpoint=checkpoint,
        results=results,
        baseline=baseline,
        images=images,
        masks=masks,
        features=features,
        json_file=json_file,
        sheet=sheet,
        limit=limit,
        device=device,
        threads=context.obj["threads"],
    )
    print(table)


@app.command()
def diagnose(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of an assembled model.")],
    images: TestImagesOption,
    masks: TestMasksOption,
    labelled: Annotated[Path | None, typer.Option(help="Folder of photographs with labels, for the parser.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of their CelebAMask-HQ label maps.")] = None,
    holdout_every: Annotated[int, typer.Option(min=1, help="Each so-many-th of them, as in training.")] = 10,
    features: FeaturesOption = None,
    limit: LimitOption = None,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Measure what each part of a model is worth: refiner, memory, parser."""
    check_writable("--json", json_file)
    if (labelled is None) != (labels is None):
        raise UsageError("--labelled and --labels go together")
    methods: Any = load_extra("showface.evaluation.quality.methods", "train")
    _set_threads(context)
    diagnosis: Any = load_extra("showface.evaluation.quality.diagnosis", "train")
    place, network = methods.torch_device(device), None
    if features is not None:
        network = load_extra("showface.evaluation.quality.frechet", "train").feature_network(features, place)
    found = diagnosis.diagnose(
        load_extra("showface.training.checkpoint", "train").model_from_checkpoint(checkpoint)[0],
        place,
        images,
        masks,
        network,
        None if labelled is None or labels is None else (labelled, labels),
        holdout_every,
        limit,
    )
    if json_file is not None:
        with system_errors(UsageError, json_file, "cannot be written"):
            json_file.write_text(found.to_json(), encoding="utf-8")
    print(diagnosis.diagnosis_table(found))


@app.command()
def ablate(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="modules, losses or memory: the paper's Table 2, 3 or 4.")],
    config: ConfigOption,
    images: TestImagesOption,
    masks: TestMasksOption,
    data: DataOption = Path(),
    output: Annotated[Path, typer.Option(help="A folder for each row goes here.")] = Path("runs/ablation"),
    rows: Annotated[str | None, typer.Option(help="Comma-separated names; default: all rows.")] = None,
    features: FeaturesOption = None,
    limit: LimitOption = None,
    device: TrainDeviceOption = "cpu",
    devices: DevicesOption = 1,
) -> None:
    """Train and measure the rows of an ablation table; run again to continue where it stopped."""
    ablation: Any = load_extra("showface.evaluation.quality.ablation", "train")
    base, fabric = _open_run(context, config, device, devices)
    test = ablation.EvaluationSet(images, masks, features, limit)
    chosen = None if rows is None else tuple(rows.split(","))
    text = ablation.ablate(table, chosen, base, data, output, test, fabric)
    if fabric.is_global_zero:
        print(text)
