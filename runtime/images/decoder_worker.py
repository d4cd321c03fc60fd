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
import tempfile
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from .codec import Photo, decode_photo

READY = b"ready\n"
STDERR = 2
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
        "metadata": photo.metadata.to_json(),
        "gray": photo.gray,
        "notes": photo.notes,
    }
    reply.write(json.dumps(header).encode() + b"\n")
    reply.write(np.ascontiguousarray(photo.pixels).data)
    reply.write(profile + exif)


def check_damage(data: bytes, name: str) -> None:
    """Refuse a JPEG that is damaged in the middle; its decoder goes on and only prints that.

    Raises:
        InputError: with what the decoder printed.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    with tempfile.TemporaryFile() as said:
        kept = os.dup(STDERR)
        os.dup2(said.fileno(), STDERR)
        try:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
        said.seek(0)
        words = said.read(1000).decode(errors="replace").strip().splitlines()
    if any("orrupt" in line for line in words):
        raise InputError(f"{name}: is damaged: {words[0]}")


def serve(requests: BinaryIO, reply: BinaryIO) -> None:
    """Decode until there are no more requests."""
    reply.write(READY)
    reply.flush()
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        try:
            photo = decode_photo(data, request["name"])
            check_damage(data, request["name"])
            _answer(reply, photo)
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
    Image.preinit()  # loads the decoders of the usual formats, which the first picture would wait for
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the parent reads no warnings of the decoders
    serve(sys.stdin.buffer, sys.stdout.buffer)
