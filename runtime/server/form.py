"""Read the form of a request into memory: bounded in bytes, time, parts and names; nothing is written to a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .refusal import Refusal

FILES = ("image", "mask")
TEXTS = ("mask_from", "format")
MAX_TEXT = 500  # bytes: mask_from may name all categories
MAX_HEADERS = 2048  # bytes of the headers of one part
UPLOAD_SECONDS = 60.0  # in which a body must have come: a slow client holds a place in the queue
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Form:
    """What a client has sent: the bytes of a picture, and a mask file or the name of another source of the hole.

    With neither the server's networks look for what covers the face.
    """

    image: bytes
    mask: bytes | None
    mask_from: str | None
    format: str


@dataclass(slots=True)
class _Parts:
    """The callbacks of the parser: collects the parts that the server knows and refuses all others."""

    found: dict[str, bytearray] = field(default_factory=dict)
    ended: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _size: int = 0
    _part: bytearray = field(default_factory=bytearray)
    _limit: int | None = None

    def begin(self) -> None:
        self._disposition, self._size = b"", 0

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._value += data[start:end]

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > MAX_HEADERS:
            raise Refusal(400, f"the headers of a part of the form are longer than {MAX_HEADERS} bytes")

    def header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in (*FILES, *TEXTS):
            raise Refusal(400, f"the form has a field {name[:40]!r}; send {', '.join((*FILES, *TEXTS))}")
        if name in self.found:
            raise Refusal(400, f"the form has two fields {name!r}; send one")
        self._part = self.found[name] = bytearray()
        self._limit = MAX_TEXT if name in TEXTS else None

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._limit is not None and len(self._part) + end - start > self._limit:
            raise Refusal(400, f"a text field of the form is longer than {self._limit} bytes")
        self._part += memoryview(data)[start:end]

    def end(self) -> None:
        self.ended = True


def _boundary(headers: Mapping[str, str]) -> bytes:
    kind, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refusal(400, "the request is no form; send multipart/form-data with the fields image and mask")
    return boundary


async def read_form(headers: Mapping[str, str], body: AsyncIterator[bytes], limit: int) -> Form:
    """Return the form of a request.

    Args:
        headers: of the request, by names in lower case.
        body: its body as it comes in.
        limit: of the body's size in bytes.

    Raises:
        Refusal: 400 it is no such form, 408 it came too slowly, 413 it is larger than ``limit``.
    """
    too_large = Refusal(413, f"the request is larger than {limit // MIB} MiB, which is what this server takes")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    parts = _Parts()
    parser = MultipartParser(
        _boundary(headers),
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.header_name,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_finished,
            "on_part_data": parts.data,
            "on_end": parts.end,
        },
    )
    size = 0
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for chunk in body:
                size += len(chunk)
                if size > limit:
                    raise too_large
                parser.write(chunk)
        parser.finalize()
    except TimeoutError:
        raise Refusal(408, f"the request did not come within {UPLOAD_SECONDS:g} s; send it again") from None
    except FormParserError:
        raise Refusal(400, "the form is broken: it is no well-formed multipart/form-data") from None
    if not parts.ended:
        raise Refusal(400, "the form is cut off: its closing boundary is missing")
    return _checked(parts.found)


def _checked(found: Mapping[str, bytearray]) -> Form:
    if "image" not in found:
        raise Refusal(400, "the form has no field 'image'; send the picture in it")
    mask, text = found.get("mask"), found.get("mask_from")
    if mask is not None and text is not None:
        raise Refusal(400, "the form has both 'mask' and 'mask_from'; send one of the two to tell where the hole is")
    return Form(
        bytes(found["image"]),
        None if mask is None else bytes(mask),
        None if text is None else text.decode("utf-8", "replace"),
        found.get("format", b"same").decode("utf-8", "replace"),
    )
