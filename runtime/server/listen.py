"""Listen for clients until a signal comes, and then finish what is in flight."""

from __future__ import annotations

import os
import socket
from types import FrameType

import uvicorn

from ..errors import UsageError
from .app import make_app
from .service import Service

CONNECTIONS = 1000  # at once; more are answered with 503 before anything of them is read
IDLE_SECONDS = 15  # that a connection may be kept without a request


def bind(host: str, port: int) -> socket.socket:
    """Return a socket of that address, which does not listen yet.

    Args:
        host: name or address; ``0.0.0.0`` or ``::`` for all.
        port: 0 lets the system choose.

    Raises:
        UsageError: the address is not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host}: cannot be listened on: {error.strerror or error}; give another host") from error
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        text = f"{host}:{port}: cannot be listened on: {error.strerror or error}; give another host or port"
        raise UsageError(text) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return where a browser on this machine finds the page."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach it."""
    host = listener.getsockname()[0]
    return bool(host == "::1" or host.startswith("127."))


class _Server(uvicorn.Server):
    """Ends at the first signal once all requests are answered, at the second at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)  # threads of the networks would be waited for; no file is half-written
        super().handle_exit(sig, frame)


def listen(service: Service, listener: socket.socket) -> None:
    """Answer clients until SIGINT or SIGTERM, which is raised again once everything in flight is answered."""
    config = uvicorn.Config(
        make_app(service),
        http="h11",  # its parser in Python: what answers does not depend on what else is installed
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
    )
    _Server(config).run(sockets=[listener])
