"""``showface validate``: does a bundle compute what PyTorch computed?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..backends import Backend
from ..bundle import open_bundle
from ..errors import UsageError, system_errors
from .common import (
    BackendOption,
    BundleArgument,
    DeviceOption,
    ImagesOption,
    JsonOption,
    MasksOption,
    app,
    check_writable,
    errors,
    load_extra,
)
from .parity import print_parity, real_faces


@app.command()
def validate(
    context: typer.Context,
    bundle: BundleArgument = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Compare with PyTorch instead of the golden file.")] = None,
    images: ImagesOption = None,
    masks: MasksOption = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Prove that a bundle computes what PyTorch computed: each stage, then the chain."""
    from ..backends import open_chain
    from ..parity import check_parity, golden_reference

    check_writable("--json", json_file)
    opened = open_bundle(bundle)
    threads = context.obj["threads"]
    if checkpoint is None:
        if images is not None or masks is not None:
            raise UsageError("--images and --masks need --checkpoint: only golden inputs have a reference of their own")
        chain = open_chain(opened, backend, device, threads)
        errors.print(f"using {chain.description}, reference: golden.npz")
        report = check_parity(chain, [golden_reference(opened)])
        chain.close()
    else:
        exporter: Any = load_extra("showface.export.bundle", "export")
        faces = real_faces(images, masks, opened.manifest.image_size)
        report = exporter.checkpoint_parity(opened, checkpoint, faces, threads, device, backend)
    if json_file is not None:
        with system_errors(UsageError, json_file, "cannot be written"):
            json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_parity(report)
    if not report["passed"]:
        raise typer.Exit(1)
