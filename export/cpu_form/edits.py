"""Edits of a graph in place: how it is wired, nodes replaced, constants added, what is left over dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..graph import attribute, producers, readers, shapes


class Constants(Mapping[str, NDArray[Any]]):
    """The constants of a graph, each decoded when it is asked for: most rewrites look at few."""

    def __init__(self, model: ModelProto) -> None:
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._decoded: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._decoded:
            self._decoded[name] = numpy_helper.to_array(self._stored[name])
        return self._decoded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How a graph was wired when this was taken.

    Attributes:
        constants: their values, as they are when one is first asked for.
        producers: the node that writes each tensor.
        readers: the nodes that read each tensor.
        shapes: shapes that the graph declares; an open dimension is 0.
        outputs: outputs of the graph.
    """

    constants: Mapping[str, NDArray[Any]]
    producers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]
    shapes: Mapping[str, tuple[int, ...]]
    outputs: frozenset[str]

    @classmethod
    def of(cls, model: ModelProto) -> Wiring:
        """Return the wiring of ``model``."""
        outputs = frozenset(output.name for output in model.graph.output)
        return cls(Constants(model), producers(model), readers(model), shapes(model), outputs)

    def image_shape(self, tensor: str) -> tuple[int, int, int]:
        """Return channels, height and width of ``tensor``; zeros where one is open or it has other dimensions."""
        shape = self.shapes.get(tensor, ())
        return shape[1:] if len(shape) == 4 and all(shape[1:]) else (0, 0, 0)

    def only_reader(self, node: NodeProto) -> NodeProto | None:
        """Return the one node that reads a node's output, which nothing else sees."""
        follow = self.readers.get(node.output[0], [])
        return follow[0] if len(follow) == 1 and node.output[0] not in self.outputs else None

    def ends(self, node: NodeProto) -> tuple[NodeProto, NodeProto] | None:
        """Return the DQ before and the Q behind a node that stands in 8 bits alone."""
        start, end = self.producers.get(node.input[0]), self.only_reader(node)
        if start is None or end is None or (start.op_type, end.op_type) != ("DequantizeLinear", "QuantizeLinear"):
            return None
        return start, end

    def repetition(self, node: NodeProto) -> tuple[int, int] | None:
        """Return how often a Resize repeats each pixel downwards and to the right, if it does nothing else."""
        if node.op_type != "Resize" or len(node.input) < 3:
            return None
        scales = self.constants.get(node.input[2])
        kind = [attribute(node, name, "") for name in ("mode", "coordinate_transformation_mode", "nearest_mode")]
        if scales is None or scales.shape != (4,) or kind != [b"nearest", b"asymmetric", b"floor"]:
            return None
        times = tuple(int(scale) for scale in scales)
        return (times[2], times[3]) if (scales == times).all() and times[:2] == (1, 1) else None


def add_constants(model: ModelProto, values: Mapping[str, NDArray[Any] | np.generic]) -> None:
    """Give ``model`` constants under their names."""
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())


def replace_constant(model: ModelProto, name: str, value: NDArray[Any]) -> None:
    """Give a constant of ``model`` another value."""
    next(tensor for tensor in model.graph.initializer if tensor.name == name).CopyFrom(
        numpy_helper.from_array(value, name)
    )


def declare_shape(model: ModelProto, tensor: str, shape: tuple[int, int, int]) -> None:
    """Declare channels, height and width of a float tensor of ``model``, of any number of faces."""
    model.graph.value_info.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [None, *shape]))


def replace_node(model: ModelProto, node: NodeProto, nodes: Iterable[NodeProto]) -> None:
    """Put ``nodes`` where ``node`` stands; every node has a name of its own."""
    listed = list(model.graph.node)
    place = [each.name for each in listed].index(node.name)
    listed[place : place + 1] = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(listed)


def copy_of(node: NodeProto, read: str, output: str) -> NodeProto:
    """Return a copy that reads ``read`` first and writes ``output``, which names it too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.input[0], copy.output[0] = output, read, output
    return copy


def drop_unread(model: ModelProto) -> None:
    """Remove nodes whose outputs nothing reads, those that only they read, and constants that are left over."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    for stored, left in ((model.graph.node, kept[::-1]), (model.graph.initializer, constants)):
        if len(left) < len(stored):  # to write a list anew copies what is in it
            del stored[:]
            stored.extend(left)
