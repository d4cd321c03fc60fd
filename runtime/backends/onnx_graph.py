"""As much of an ONNX file as is needed to replace nodes of its graph: a device has no package ``onnx``.

A file is a protocol buffer: fields of a number, a kind and a value. What is not looked into is written as it was read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = tuple[int, int, Any]  # number, kind, and an int, bytes, or bytes in parts
GROWTH = 8  # bytes that may be added for each that was read; 16 taps for 9, float32 for float16 come to 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Numbers of fields, from onnx.proto.
_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8"), 10: np.dtype("<f2")}


def read_fields(data: memoryview) -> Iterator[Field]:
    """Yield the fields of a message.

    Raises:
        ValueError: it is none.
    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, kind, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if place + size > len(data):
            raise ValueError("a field reaches beyond its message")
        yield tag >> 3, kind, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("a number is cut off")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number is too long")


def write_fields(fields: Iterable[Field]) -> list[Any]:
    """Return the message of some fields in parts, so that weights are copied once, when all is joined."""
    parts: list[Any] = []
    for number, kind, value in fields:
        parts.append(_encoded(number << 3 | kind))
        if kind == _VARINT:
            parts.append(_encoded(value))
            continue
        content = value if isinstance(value, list) else [value]
        parts += [_encoded(sum(map(len, content))), *content] if kind == _BYTES else content
    return parts


def _encoded(value: int) -> bytes:
    value &= 2**64 - 1
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)


def _text(value: Any) -> str:
    return _content(value).decode()


def _content(value: Any) -> bytes:
    if isinstance(value, int):  # of which bytes() would make so many zeros
        raise ValueError("a number where bytes belong")
    return bytes(value)


@dataclass(frozen=True, slots=True)
class Node:
    """An operation: its names, and its attributes as int, float, bytes or list of ints; others are None."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    raw: memoryview | None = None  # as it was read

    @classmethod
    def read(cls, data: memoryview) -> Node:
        """Return the node of a message."""
        parts = list(read_fields(data))
        names: dict[int, list[str]] = {1: [], 2: [], 4: []}
        for number, _, value in parts:
            if number in names:
                names[number].append(_text(value))
        attributes = dict(_attribute(value) for number, _, value in parts if number == 5)
        return cls(names[4][0], names[1], names[2], attributes, data)

    def write(self) -> list[Any]:
        """Return the message of the node; of attributes, it knows int and list of ints."""
        if self.raw is not None:
            return [self.raw]
        fields: list[Field] = [(1, _BYTES, name.encode()) for name in self.inputs]
        fields += [(2, _BYTES, name.encode()) for name in self.outputs]
        fields += [(3, _BYTES, self.outputs[0].encode()), (4, _BYTES, self.op.encode())]
        for name, value in self.attributes.items():
            content: list[Field] = [(1, _BYTES, name.encode())]
            if isinstance(value, int):
                content += [(3, _VARINT, value), (20, _VARINT, 2)]
            else:
                content += [*((8, _VARINT, each) for each in value), (20, _VARINT, 7)]
            fields.append((5, _BYTES, write_fields(content)))
        return write_fields(fields)


def _attribute(data: memoryview) -> tuple[str, Any]:
    name, value, many = "", None, list[int]()
    for number, kind, part in read_fields(data):
        if number == 1:
            name = _text(part)
        elif number == 2:
            value = struct.unpack("<f", part)[0]
        elif number == 3:
            value = part
        elif number == 4:
            value = _content(part)
        elif number == 8:
            many += [part] if kind == _VARINT else _packed(part)
    return name, many or value


def _packed(data: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(data):
        value, place = _varint(data, place)
        values.append(value)
    return values


class Graph:
    """The graph of a model.

    Attributes:
        nodes: in order.
        constants: the messages of the initializers, by name; see :meth:`value`.
        shapes: declared dimensions by name; an open one is 0.
        outputs: names of the graph's outputs.

    Raises:
        ValueError: it is no ONNX model.
    """

    def __init__(self, data: bytes) -> None:
        self._model = list(read_fields(memoryview(data)))
        graphs = [value for number, kind, value in self._model if (number, kind) == (_MODEL_GRAPH, _BYTES)]
        if len(graphs) != 1:
            raise ValueError("there is no graph")
        parts = list(read_fields(graphs[0]))
        self._rest = [part for part in parts if part[0] not in (_NODE, _INITIALIZER)]
        self.nodes = [Node.read(value) for number, _, value in parts if number == _NODE]
        self._added: dict[str, list[Any]] = {}
        self._room = GROWTH * len(data)
        self.constants = {_name(value, 8): value for number, _, value in parts if number == _INITIALIZER}
        declared = [value for number, _, value in parts if number in (_INPUT, _OUTPUT, _VALUE_INFO)]
        self.shapes = {_name(value, 1): _dims(value) for value in declared}
        self.outputs = {_name(value, 1) for number, _, value in parts if number == _OUTPUT}

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant of float32, float16 or int64; None for others, and where there is none."""
        if name not in self.constants:
            return None
        dims, raw = list[int](), b""
        dtype: np.dtype[Any] | None = None
        for number, kind, value in read_fields(self.constants[name]):
            if number == 1:
                dims += [value] if kind == _VARINT else _packed(value)
            elif number == 2:
                dtype = _DTYPES.get(value)
            elif number == 9:
                raw = value
        if dtype is None or len(raw) != dtype.itemsize * int(np.prod(dims, dtype=np.int64)):
            return None
        return np.frombuffer(raw, dtype).reshape(dims)

    def add_constant(self, name: str, value: NDArray[Any]) -> None:
        """Add a constant of float32 or int64.

        Raises:
            ValueError: the constants that were added outgrow the model, as where many nodes share one kernel.
        """
        self._room -= value.nbytes
        if self._room < 0:
            raise ValueError("what is added outgrows the model")
        kind = next(number for number, dtype in _DTYPES.items() if dtype == value.dtype)
        fields: list[Field] = [(1, _VARINT, size) for size in value.shape]
        raw = memoryview(np.ascontiguousarray(value).tobytes())
        fields += [(2, _VARINT, kind), (8, _BYTES, name.encode()), (9, _BYTES, [raw])]
        self._added[name] = write_fields(fields)

    def write(self) -> bytes:
        """Return the model, without nodes and constants that nothing reads."""
        needed, kept = set(self.outputs), list[Node]()
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        fields: list[Field] = [(_NODE, _BYTES, node.write()) for node in reversed(kept)]
        fields += self._rest
        constants = {**self.constants, **self._added}
        fields += [(_INITIALIZER, _BYTES, value) for name, value in constants.items() if name in needed]
        graph = (_MODEL_GRAPH, _BYTES, write_fields(fields))
        return b"".join(write_fields([*(f for f in self._model if f[0] != _MODEL_GRAPH), graph]))


def _name(data: memoryview, number: int) -> str:
    return next((_text(value) for found, _, value in read_fields(data) if found == number), "")


def _dims(value_info: memoryview) -> tuple[int, ...]:
    """Return the dimensions of a ValueInfoProto: type (2), tensor_type (1), shape (2), dim (1), dim_value (1)."""
    messages = [value_info]
    for number in (2, 1, 2, 1):
        messages = [part for data in messages for found, _, part in read_fields(data) if found == number]
    return tuple(next((v for found, _, v in read_fields(data) if found == 1), 0) for data in messages)
