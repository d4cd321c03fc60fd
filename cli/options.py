"""Options that several verbs share, and checks of what they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.errors import UsageError, system_errors

BundleArgument = Annotated[Path | None, typer.Argument(help="Bundle folder; default: the one shipped.")]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")]
CheckpointArgument = Annotated[Path, typer.Argument(help="Checkpoint of an assembled model.")]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help="Bundle folder; default: the one shipped.")]
BackendOption = Annotated[Backend, typer.Option("--backend", help="Inference backend.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.")]
CudaGraphOption = Annotated[
    bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Launch the work of engines as CUDA graphs.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Real faces; default: the golden inputs.")]
MasksOption = Annotated[Path | None, typer.Option("--masks", help="Mask file, or folder of masks by stem.")]

# Of training, and of what measures a model's quality.
ConfigOption = Annotated[Path, typer.Option(help="TOML file; see training/configs.")]
DataOption = Annotated[Path, typer.Option(help="Folder that the config's paths are relative to.")]
TrainDeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
DevicesOption = Annotated[int, typer.Option(min=1, help="Processes, one a device; torchrun decides it when used.")]
TestImagesOption = Annotated[Path, typer.Option("--images", help="Folder of aligned faces.")]
TestMasksOption = Annotated[Path, typer.Option("--masks", help="Folder of ratio bins (00-10 …), white = hole.")]
FeaturesOption = Annotated[
    Path | None, typer.Option("--features", help="Weights for the Fréchet distance: FID's Inception, or VGG-16.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Faces a bucket; default: all.")]

# Of engines.
EngineBackendOption = Annotated[str, typer.Option("--backend", help="tensorrt or tensorrt-rtx.")]
TargetOption = Annotated[list[str] | None, typer.Option("--target", help="sm_86 …; repeat it for several.")]


def check_writable(option: str, path: Path | None) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Raises:
        UsageError: its folder is missing or read-only, or it is a folder itself.
    """
    if path is None:
        return
    with system_errors(UsageError, path, "cannot be written"):
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a folder; give a file name")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: cannot be written: permission denied")


def check_picture(option: str, path: Path | None) -> None:
    """Refuse, before any work, a picture that could not be written after it.

    Raises:
        UsageError: as :func:`check_writable`, or no such format is written.
    """
    from showface.runtime.images.codec import SUFFIXES

    check_writable(option, path)
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{option} {path}: showface writes {', '.join(SUFFIXES)}; choose one of these suffixes")


def write_text(path: Path | None, text: str) -> None:
    """Write a file that an option names, where it does.

    Raises:
        UsageError: it cannot be written.
    """
    if path is not None:
        with system_errors(UsageError, path, "cannot be written"):
            path.write_text(text, encoding="utf-8")
