"""Options that several verbs share, and checks of what they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.batch.results_log import parse_result
from showface.runtime.bundle import MANIFEST_FILE, open_bundle
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.files import Ours, check_replaceable, write_side

if TYPE_CHECKING:
    from showface.runtime.batch.options import Alignment
    from showface.runtime.faces.masks import MaskSource

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
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that showface did not write.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Real faces; default: the golden inputs.")]


def _worker_count(text: str | int) -> int:
    if str(text) in ("auto", "0"):
        return 0
    if not str(text).isdecimal():
        raise typer.BadParameter("give auto or a whole number")
    return int(text)


WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        parser=_worker_count,
        metavar="auto|N",
        show_default="auto",
        help="Batches side by side on a CPU, which share its threads; on Ray, of each of its workers.",
    ),
]
MaskFromOption = Annotated[
    str,
    typer.Option(
        "--mask-from",
        help="file, alpha, color:#RRGGBB, class:NAME,… (what the parser finds), occlusion (what covers the face), or "
        "occlusion,class:NAME,….",
    ),
]
MaskSuffixOption = Annotated[
    str | None,
    typer.Option(
        "--mask-suffix", help="What masks add to the stem of their image; without --masks: beside it. [_mask]"
    ),
]
InvertOption = Annotated[bool, typer.Option("--invert-masks", help="Complete what is black in the masks.")]
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


def refuse_idle(context: typer.Context, why: str, *names: str) -> None:
    """Refuse those of the options that were given and would change nothing beside the others.

    Args:
        context: of the verb.
        why: what does not go with them; the message ends with it.
        names: of the verb's parameters.

    Raises:
        UsageError: names the options as they were given.
    """
    given = []
    for option in context.command.params:
        if option.name is None or option.name not in names:
            continue
        source = context.get_parameter_source(option.name)
        if source is not None and source.name != "DEFAULT":
            off = context.params[option.name] is False and option.secondary_opts
            given.append((option.secondary_opts if off else option.opts)[0])
    if given:
        raise UsageError(f"{', '.join(given)}: {'does' if len(given) == 1 else 'do'} nothing here: {why}")


def found_mask_source(
    mask_from: str,
    masks: Path | None,
    margin: int,
    threshold: float,
    min_hole: float,
    max_hole: float,
    bundle: Path | None,
) -> MaskSource:
    """Return the mask source that the options describe.

    Raises:
        UsageError: they do not fit together, or occlusions are to be found by a bundle without an occluder.
    """
    from showface.runtime.faces.masks import mask_source
    from showface.runtime.faces.occlusion import OcclusionSettings

    try:
        limits = OcclusionSettings(threshold, margin, min_hole, max_hole)
    except ValueError as error:
        raise UsageError(f"--occlusion-threshold, --min-hole, --max-hole: {error}") from error
    source = mask_source(mask_from, masks, margin, limits)
    if source.kind == "occlusion":
        opened = open_bundle(bundle)
        if opened.manifest.occluder is None:
            raise UsageError(
                f"{opened.folder}: this bundle has no occluder for --mask-from occlusion; give it one with: showface "
                "export BUNDLE OUT --occluder CHECKPOINT, or use --masks or --mask-from class:NAME"
            )
    return source


def alignment_of(align: bool, detector: Path | None, landmarks: Path | None) -> Alignment | None:
    """Return how faces are found in pictures of any kind; None where each image is an aligned face.

    Raises:
        UsageError: the options do not fit together, or there is no detector.
    """
    from showface.runtime.batch.options import Alignment
    from showface.runtime.faces.landmarks import find_detector

    if not align and (detector is not None or landmarks is not None):
        raise UsageError("--face-detector and --landmarks go with --align")
    if not align:
        return None
    return Alignment(find_detector(detector) if landmarks is None else None, landmarks)


def check_writable(option: str, path: Path | None, made: Path | None = None) -> None:
    """Refuse, before any work, a file that could not be written after it; ``made`` is a folder that will be made.

    Raises:
        UsageError: its folder is missing or read-only, or it is a folder itself.
    """
    if path is None:
        return
    with system_errors(UsageError, path, "cannot be written"):
        will_be = made is not None and Path(os.path.abspath(made)).is_relative_to(os.path.abspath(path.parent))
        if will_be and not path.parent.exists():
            return
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a folder; give a file name")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: cannot be written: permission denied")


def check_sides(
    sides: Mapping[str, Path | None],
    overwrite: bool,
    *given: Path | None,
    ours: Ours | None = None,
    made: Path | None = None,
) -> None:
    """Refuse, before any work, files beside the outputs that could not or may not be written after it.

    Args:
        sides: what the options name.
        overwrite: replace files that showface did not write.
        given: files and folders that the verb reads; these are never written to.
        ours: see :func:`showface.runtime.files.check_replaceable`.
        made: a folder that the verb makes, with those above it, once it has checked all; files may lie in them.

    Raises:
        UsageError: as :func:`check_writable`; or two options name one file, it is read by the verb, or exists.
    """
    from showface.runtime.images.codec import SUFFIXES

    seen: dict[str, str] = {}
    for option, path in sides.items():
        if path is None:
            continue
        check_writable(option, path, made)
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{option} {path}: is also what {seen[real]} names; choose another name")
        seen[real] = option
        for folder in (folder for folder in given if folder is not None):
            inside = Path(real).is_relative_to(os.path.realpath(folder))
            kept = os.path.lexists(path) or path.suffix.lower() in SUFFIXES or (folder / MANIFEST_FILE).exists()
            if inside and kept:
                how = "is" if real == os.path.realpath(folder) else "lies in"
                raise UsageError(f"{option} {path}: {how} {folder}, which is read; choose another place")
        check_replaceable(path, overwrite, ours)


def are_results(data: bytes) -> bool:
    """Return whether a file is what ``masks --json`` writes: a line for each result."""
    lines = data.decode("utf-8", "replace").splitlines()
    return bool(lines) and all(parse_result(line) is not None for line in lines)


def check_pictures(
    sides: Mapping[str, Path | None], overwrite: bool, *given: Path | None, made: Path | None = None
) -> None:
    """Refuse, before any work, pictures that could not or may not be written after it.

    Raises:
        UsageError: as :func:`check_sides`, or no such format is written.
    """
    from showface.runtime.images.codec import SUFFIXES

    for option, path in sides.items():
        if path is not None and path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{option} {path}: showface writes {', '.join(SUFFIXES)}; choose one of these suffixes")
    check_sides(sides, overwrite, *given, made=made)


def make_folder(folder: Path | None) -> None:
    """Make a folder for outputs that an option names, where it does, and those above it.

    Raises:
        UsageError: it cannot be made.
    """
    if folder is not None:
        with system_errors(UsageError, folder, "cannot be made"):
            folder.mkdir(parents=True, exist_ok=True)


def write_text(path: Path | None, text: str, overwrite: bool, ours: Ours | None = None) -> None:
    """Write a file that an option names, where it does; see :func:`showface.runtime.files.write_side`."""
    if path is not None:
        write_side(path, text.encode(), overwrite, ours)
