"""A look into an ONNX file, without the package ``onnx``: whether it refers to other files.

Weights of a graph may lie in files that it names, relative to the working directory or at any address of the memory.
No hash covers them, so that a bundle's graphs may not have any. Fields and their numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator

# Of each message, the fields that hold messages in which a tensor may lie.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL = (13, 14)  # of a tensor: where its data lie, and that they lie elsewhere
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types


def refers_to_files(data: bytes) -> bool:
    """Return whether any tensor of a model, at whatever depth, has its data outside.

    Raises:
        ValueError: the bytes are no such message.
    """
    if b"location" not in data:  # every such reference has an entry of this name
        return False
    view, left = memoryview(data), [("model", 0, len(data))]
    while left:
        kind, start, end = left.pop()
        for number, wire, first, last in _fields(view, start, end):
            if kind == "tensor" and number in _EXTERNAL and (wire == _BYTES or bytes(view[first:last]) != b"\0"):
                return True
            if wire == _BYTES and number in _FIELDS[kind]:
                left.append((_FIELDS[kind][number], first, last))
    return False


def _fields(view: memoryview, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type and the bounds of the value of each field of a message."""
    while place < end:
        tag, place = _varint(view, place, end)
        first, wire = place, tag & 7
        if wire == _VARINT:
            place = _varint(view, place, end)[1]
        elif wire == _BYTES:
            size, first = _varint(view, place, end)
            place = first + size
        elif wire in (_EIGHT, _FOUR):
            place += 8 if wire == _EIGHT else 4
        else:
            raise ValueError("not a message of protobuf")
        if place > end:
            raise ValueError("a message of protobuf that is cut off")
        yield tag >> 3, wire, first, place


def _varint(view: memoryview, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = view[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            return value, place
    raise ValueError("a message of protobuf that is cut off")
