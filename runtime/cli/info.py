"""``showface info``: versions, devices, and what a bundle holds."""

from __future__ import annotations

import sys

from ..bundle import open_bundle
from ..version import __version__
from .common import BundleArgument, app


@app.command()
def info(
    bundle: BundleArgument = None,
) -> None:
    """Show versions, devices, and what a bundle holds."""
    import onnxruntime

    from ..onnxruntime_backend import cuda_device_count

    opened = open_bundle(bundle)
    manifest = opened.manifest
    rows = [
        ("showface", __version__),
        ("python", sys.version.split()[0]),
        ("onnxruntime", f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())})"),
        ("CUDA devices", str(cuda_device_count())),
        ("bundle", str(opened.folder)),
        ("variant", f"{manifest.variant}, {manifest.image_size}×{manifest.image_size}"),
        ("checkpoint", manifest.checkpoint_sha256[:16]),
    ]
    for stage in manifest.stages:
        size = len(opened.model(stage)) / 2**20
        rows.append((f"  {stage.name}", f"{manifest.precision[stage.name]}, {size:.1f} MiB, hash checked"))
    for name, value in rows:
        print(f"{name:<13}{value}")  # a table would cut a long path
