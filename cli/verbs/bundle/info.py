"""``showface info``: versions, devices, and what a bundle holds."""

from __future__ import annotations

import os
import sys

from showface.runtime.bundle import CPU_FORM, Bundle, open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.version import __version__

from ...options import BundleArgument
from ...printing import console


def info(bundle: BundleArgument = None) -> None:
    """Show versions, devices, and what a bundle holds."""
    import onnxruntime

    from showface.runtime.backends.cuda_devices import cuda_device_count

    opened = open_bundle(bundle)
    manifest = opened.manifest
    rows = [
        ("showface", __version__),
        ("python", sys.version.split()[0]),
        ("onnxruntime", f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())})"),
        *((package, _version(package)) for package in ("tensorrt", "tensorrt-rtx")),
        ("CUDA devices", str(cuda_device_count())),
        ("bundle", str(opened.folder)),
        ("variant", f"{manifest.variant}, {manifest.image_size}×{manifest.image_size}"),
        *([("form", "CPU form: rewritten to be faster there")] if manifest.form == CPU_FORM else []),
        ("checkpoint", manifest.checkpoint_sha256[:16]),
    ]
    for stage in manifest.graphs:
        if (opened.folder / f"{stage.name}.onnx").exists():
            held = f"{len(opened.model(stage)) / 2**20:.1f} MiB, hash checked"
        else:
            held = "its graph is not here"  # a kit with engines leaves the graphs out
        rows.append((f"  {stage.name}", f"{manifest.precision[stage.name]}, {held}"))
    rows += _engine_rows(opened)
    rows += [("warning", text) for text in _warnings()]
    for name, value in rows:
        console.print(f"{name:<13}{value}")  # a table would cut a long path


def _warnings() -> list[str]:
    """Return what about this installation works otherwise than its user may expect."""
    found = []
    if all(_version(package) != "not installed" for package in ("onnxruntime", "onnxruntime-gpu")):
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and share a folder, so that CUDA may be gone; "
            "pip uninstall both, then pip install 'showface[cuda]' or showface"
        )
    if os.environ.get("ORT_DISABLE_TELEMETRY", "") in ("", "0", "false"):
        found.append("ONNX Runtime's telemetry is on; unset ORT_DISABLE_TELEMETRY, and showface switches it off")
    return found


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _engine_rows(bundle: Bundle) -> list[tuple[str, str]]:
    """Return a row for each set of engines: batches, precision and size, or what is wrong with it."""
    from showface.runtime.backends.tensorrt.library import LIBRARIES
    from showface.runtime.backends.tensorrt.sidecar import engine_folders, read_engine, read_sidecar

    rows = []
    for folder in (folder for backend in LIBRARIES for folder in engine_folders(bundle, backend)):
        try:
            sidecars = [read_sidecar(folder, stage.name) for stage in bundle.manifest.graphs]
            size = sum(len(read_engine(folder, sidecar)) for sidecar in sidecars) / 2**20
        except UsageError as error:
            rows.append(("engines", str(error)))
            continue
        first = sidecars[0]
        batches = "/".join(map(str, first.batches))
        text = f"{folder.backend} {first.tensorrt_version} for {folder.target}, batches {batches}, {size:.1f} MiB"
        rows.append(("engines", f"{text}, hashes checked"))
    return rows
