"""What all verbs share: the app, its global options, and how a missing extra is answered."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from showface.runtime.backends import Backend
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.version import __version__

if TYPE_CHECKING:
    from showface.runtime.faces.masks import MaskSource

app = typer.Typer(
    help="Complete the hidden parts of aligned faces with MDRNets.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)
# No markup: a path such as "faces [red]" is printed as it is.
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


BundleArgument = Annotated[Path | None, typer.Argument(help="Bundle folder; default: the one shipped.")]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help="Bundle folder; default: the one shipped.")]
BackendOption = Annotated[Backend, typer.Option("--backend", help="Inference backend.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Real faces; default: the golden inputs.")]
MaskFromOption = Annotated[
    str,
    typer.Option(
        "--mask-from",
        help="file, alpha, color:#RRGGBB, class:NAME,… (what the parser finds), occlusion (what covers the face), or "
        "occlusion,class:NAME,….",
    ),
]
MaskMarginOption = Annotated[
    int, typer.Option("--mask-margin", min=0, max=64, help="By how many of 256 pixels what is found grows.")
]
ThresholdOption = Annotated[
    float, typer.Option("--occlusion-threshold", help="Probability from which a pixel is covered.")
]
MinHoleOption = Annotated[float, typer.Option("--min-hole", help="Smallest occlusion, a share of the face's square.")]
MaxHoleOption = Annotated[
    float, typer.Option("--max-hole", help="A face whose found hole takes more of its square is left as it is.")
]
FailOnUncertainOption = Annotated[
    bool, typer.Option("--fail-on-uncertain", help="Exit with 1 where a found mask is uncertain or too large.")
]
DetectorOption = Annotated[
    Path | None, typer.Option("--face-detector", help="YuNet model for --align; default: $SHOWFACE_YUNET.")
]
LandmarksOption = Annotated[
    Path | None, typer.Option("--landmarks", help="CSV or JSON of landmarks for --align, instead of a detector.")
]
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


def found_mask_source(
    mask_from: str, masks: Path | None, margin: int, threshold: float, min_hole: float, max_hole: float
) -> MaskSource:
    """Return the mask source that the options describe.

    Raises:
        UsageError: they do not fit together.
    """
    from showface.runtime.faces.masks import mask_source
    from showface.runtime.faces.occlusion import OcclusionSettings

    try:
        limits = OcclusionSettings(threshold, margin, min_hole, max_hole)
    except ValueError as error:
        raise UsageError(f"--occlusion-threshold, --min-hole, --max-hole: {error}") from error
    return mask_source(mask_from, masks, margin, limits)


def check_occluder(source: MaskSource, bundle: Path | None) -> None:
    """Refuse, before any work, to look for occlusions without an occluder.

    Raises:
        UsageError: the bundle has none.
    """
    from showface.runtime.bundle import open_bundle

    if source.kind == "occlusion":
        opened = open_bundle(bundle)
        if opened.manifest.occluder is None:
            raise UsageError(
                f"{opened.folder}: this bundle has no occluder for --mask-from occlusion; give it one with: showface "
                "export BUNDLE OUT --occluder CHECKPOINT, or use --masks or --mask-from class:NAME"
            )


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


def load_extra(module: str, extra: str) -> Any:
    """Import a module of an optional extra; a missing one is answered with the command that mends it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("showface"):
            raise
        raise UsageError(f"this needs {error.name}; install it with: pip install 'showface[{extra}]'") from error
