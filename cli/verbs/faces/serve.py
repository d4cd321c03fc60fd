"""``showface serve``: a small server, with a page to paint the hole."""

from __future__ import annotations

from typing import Annotated

import typer

from showface.runtime.backends import Backend
from showface.runtime.errors import extra

from ...app import threads_of
from ...options import BackendOption, BundleOption, CudaGraphOption, DeviceOption
from ...printing import MIB, errors


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    bundle: BundleOption = None,
    backend: BackendOption = Backend.AUTO,
    device: DeviceOption = "auto",
    cuda_graph: CudaGraphOption = False,
    queue: Annotated[int, typer.Option(min=1, help="Requests taken at once; one more is answered with 503.")] = 32,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Faces a batch; default: 8, on a CPU 1.")] = None,
    batch_wait: Annotated[float, typer.Option(min=0, max=1000, help="Milliseconds a batch waits to fill.")] = 3.0,
    max_upload: Annotated[int, typer.Option(min=1, max=1024, help="MiB of a request.")] = 32,
) -> None:
    """Complete faces over HTTP, and paint their holes in a browser: / is the page, /inpaint takes forms."""
    with extra("serve"):
        from showface.runtime.server.listen import bind, is_loopback, listen, url_of
        from showface.runtime.server.service import Limits, Service
    from showface.runtime.inpainter import Inpainter

    listener = bind(host, port)  # before the slow load of the networks
    inpainter = Inpainter.from_bundle(bundle, device, threads_of(context), backend, cuda_graph, batch_size, faster=True)
    errors.print(f"using {inpainter.chain.description}")
    limits = Limits(queue, max_upload * MIB, batch_size or inpainter.default_batch_size, batch_wait / 1000)
    with Service(inpainter, limits) as service:
        if not is_loopback(listener):
            errors.print("other machines can reach this server: it asks nobody for a password and encrypts nothing")
        listener.listen()  # who reads the next line may ask at once, and waits until the server answers
        errors.print(f"serving on {url_of(listener)}; stop with Ctrl-C")
        listen(service, listener)
