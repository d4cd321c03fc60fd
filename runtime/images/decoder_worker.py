"""The process in which image files are decoded, spoken to through its pipes.

``python -m showface.runtime.images.decoder_worker`` starts it.

It says first that it is ready. A request and a reply are each one line of JSON, then the bytes whose numbers it gives.
The process ends with its standard input, hence with its parent, however that dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import BinaryIO

import numpy as np

from ..errors import InputError
from .codec import Photo, decode_photo

READY = b"ready\n"
MEMORY = 6 * 2**30  # bytes of address space: a file that needs more fails, and the machine does not swap for it


def _limit_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _answer(reply: BinaryIO, photo: Photo) -> None:
    profile, exif = photo.profile or b"", photo.exif or b""
    header = {
        "shape": photo.pixels.shape,
        "dtype": photo.pixels.dtype.name,
        "lossy": photo.lossy,
        "profile": None if photo.profile is None else len(profile),
        "exif": None if photo.exif is None else len(exif),
    }
    reply.write(json.dumps(header).encode() + b"\n")
    reply.write(np.ascontiguousarray(photo.pixels).data)
    reply.write(profile + exif)


def serve(requests: BinaryIO, reply: BinaryIO) -> None:
    """Decode until there are no more requests."""
    reply.write(READY)
    reply.flush()
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        try:
            _answer(reply, decode_photo(data, request["name"]))
        except InputError as error:
            reply.write(json.dumps({"error": str(error)}).encode() + b"\n")
        except MemoryError:
            text = f"{request['name']}: cannot be decoded: needs more than {MEMORY // 2**30} GiB of memory"
            reply.write(json.dumps({"error": text}).encode() + b"\n")
        reply.flush()


if __name__ == "__main__":
    # Signals that the service manager sends to all processes are the parent's to answer.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _limit_memory()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the parent reads no warnings of the decoders
    serve(sys.stdin.buffer, sys.stdout.buffer)
