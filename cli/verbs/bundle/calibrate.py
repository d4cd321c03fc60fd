"""``showface calibrate``: an INT8 variant of a bundle, measured and gated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from showface.calibration.settings import Calibrator, Target
from showface.runtime.errors import extra

from ...app import threads_of
from ...options import OverwriteOption, check_sides, refuse_idle
from ...printing import console, errors, status_of, tables

if TYPE_CHECKING:
    from showface.calibration.calibrate import CalibrationResult


def calibrate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Folder of a float bundle.")],
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    images: Annotated[Path, typer.Option(help="Folder of aligned faces, without occlusions.")],
    masks: Annotated[Path, typer.Option(help="Folder of ratio bins (00-10 …), or of masks by stem; white = hole.")],
    method: Annotated[Calibrator, typer.Option(help="Calibrator.")] = Calibrator.PERCENTILE,
    target: Annotated[Target, typer.Option(help="Who will run it.")] = Target.CPU,
    faces: Annotated[int, typer.Option(min=6, help="Faces that set the ranges.")] = 256,
    check_faces: Annotated[int, typer.Option(min=3, help="Other faces, that judge the result.")] = 48,
    max_psnr_drop: Annotated[float, typer.Option(min=0.0, help="dB against the ground truth, worst bucket.")] = 0.1,
    plan: Annotated[Path | None, typer.Option(help="Replay this plan; its method and target count.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    overwrite: OverwriteOption = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Try no more after this time, and write the best plan so far.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="What is recorded is kept here; default: OUT.work.")] = None,
) -> None:
    """Quantise to INT8 what stays within the quality budget, and say what does not."""
    if plan is not None:
        refuse_idle(context, "the method and the target of --plan count", "method", "target")
    check_sides({"--report": report}, overwrite, bundle, images, masks, plan)
    with extra("calibration"):
        from showface.calibration.calibrate import Settings
        from showface.calibration.calibrate import calibrate as make_variant
        from showface.calibration.planning.search import Budget
    if report is not None:
        with extra("calibration,report"):
            from showface.calibration.report import write_report
    kept, budget = out.with_name(f"{out.name}.work") if work is None else work, Budget(max_psnr_drop)
    settings = Settings(
        bundle,
        out,
        images,
        masks,
        kept,
        method,
        target,
        faces,
        check_faces,
        budget,
        plan,
        threads_of(context),
        max_minutes,
    )
    with status_of("showface.calibration"):
        outcome = make_variant(settings)
    _print_outcome(outcome)
    errors.print(f"wrote {out}; {kept} only serves to calibrate again and can be removed")
    if report is not None:
        write_report(report, outcome, overwrite)


def _print_outcome(outcome: CalibrationResult) -> None:
    """Print the plan by stage, the figures by bucket, and the two verdicts."""
    figures, plan = outcome.to_dict(), outcome.plan
    stages = Table("stage", "layer groups in INT8", "left in float", "× FP32, batch 1", "batch 8")
    for stage, groups in plan.stages.items():
        quantized = plan.quantized(stage)
        ratios = [timings.get(stage, {}).get("ratio") for timings in figures["speed"].values()]
        cells = [f"{ratio:.2f}" if ratio is not None else "–" for ratio in ratios]
        stages.add_row(stage, f"{len(quantized)} of {len(groups)}", str(len(groups) - len(quantized)), *cells)
    tables.print(stages)
    quality = figures["quality"]
    table = Table("hole", "PSNR FP32", "PSNR INT8", "SSIM FP32", "SSIM INT8", "L1 % FP32", "L1 % INT8")
    for bucket, row in quality["buckets"].items():
        names = ("float_psnr", "psnr", "float_ssim", "ssim", "float_l1_percent", "l1_percent")
        table.add_row(f"{bucket} %", *(f"{row[name]:.3f}" for name in names))
    tables.print(table)
    console.print(
        f"quality: {'passed' if quality['passed'] else 'FAILED'}; INT8 against FP32 in the hole "
        f"{quality['hole_psnr']:.1f} dB, worst face {quality['worst_hole_psnr']:.1f} dB; "
        f"{quality['labels']:.2%} equal labels"
    )
    console.print(f"speed: {figures['speed_verdict']}")
    console.print(f"size: {figures['size_ratio']:.2f}× the float32 weights")
