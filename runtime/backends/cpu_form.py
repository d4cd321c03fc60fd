"""The form of a float graph that is fast on a CPU; the bundle's graph stays the one source.

A 3×3 convolution of features that nearest neighbour has enlarged 2× reads equal pixels: an output lies between two
small rows and two small columns. It is four convolutions of 2×2 taps at the small size, one for each parity of row and
column, whose outputs are interleaved: 4 products instead of 9, and a quarter of the pixels to read (sub-pixel
convolution, Shi et al. 2016, with the kernels that follow from that of the large size).
"""

from __future__ import annotations

import struct
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_graph import Graph, Node

# Which rows (or columns) of a 3×3 kernel meet the first and the second of the 2 small pixels that an output reads:
# an even output lies between its own pixel and the one before, an odd one between its own and the next.
TAPS = (((0,), (1, 2)), ((0, 1), (2,)))
_AXIS = "showface.axis{}"
_PLAIN = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
_NEAREST = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}


def cpu_form(data: bytes) -> bytes:
    """Return an ONNX model that computes the same, up to rounding, and is no slower on a CPU.

    A model that cannot be read is returned as it is: whoever loads it says what is wrong.
    """
    try:
        return _rewritten(Graph(data)) or data
    except (ValueError, IndexError, OverflowError, TypeError, struct.error):
        return data


def _rewritten(graph: Graph) -> bytes | None:
    makers = {name: node for node in graph.nodes for name in node.outputs}
    nodes, changed = list[Node](), False
    for node in graph.nodes:
        new = _split(graph, makers, node)
        changed = changed or new is not None
        nodes += [node] if new is None else new
    if not changed:
        return None
    for axis in (3, 4):
        graph.add_constant(_AXIS.format(axis), np.array([axis], np.int64))
    graph.nodes = nodes
    return graph.write()


def _split(graph: Graph, makers: dict[str, Node], node: Node) -> list[Node] | None:
    """Return what replaces a node: a convolution of enlarged features, alone or joined to others; None for others."""
    kernel = _kernel(graph, makers, node)
    maker = makers.get(node.inputs[0]) if kernel is not None else None
    if kernel is None or maker is None:
        return None
    if _is_doubling(graph, maker):
        return _at_small_size(graph, node, maker, kernel, node.outputs[0])
    if maker.op != "Concat" or maker.attributes.get("axis") != 1 or len(maker.inputs) != 2:
        return None
    enlarged = [k for k, name in enumerate(maker.inputs) if name in makers and _is_doubling(graph, makers[name])]
    shape = graph.shapes.get(maker.inputs[0], ())
    if not enlarged or len(shape) != 4 or not 0 < shape[1] < kernel.shape[1]:
        return None
    which, output = enlarged[0], node.outputs[0]
    parts = np.split(kernel, [shape[1]], axis=1)
    names = [f"{output}.part{k}" for k in range(2)]
    first = _at_small_size(graph, node, makers[maker.inputs[which]], parts[which], names[0])
    if first is None:
        return None
    graph.add_constant(f"{names[1]}.weight", parts[1 - which])
    other = Node("Conv", [maker.inputs[1 - which], f"{names[1]}.weight"], [names[1]], {"pads": [1] * 4})
    return [*first, other, Node("Add", names, [output])]


def _kernel(graph: Graph, makers: dict[str, Node], node: Node) -> NDArray[np.float32] | None:
    """Return the kernel [O, I, 3, 3] of a convolution in float32 that keeps height and width; None for other nodes."""
    if node.op != "Conv" or node.attributes.get("pads") != [1] * 4:
        return None
    if any(node.attributes.get(key, value) != value for key, value in _PLAIN.items()):
        return None
    name, stored = node.inputs[1], makers.get(node.inputs[1])
    cast = stored is not None and stored.op == "Cast" and stored.attributes.get("to") == 1
    value = graph.value(stored.inputs[0] if stored is not None and cast else name)
    if value is None or value.shape[2:] != (3, 3) or (value.dtype != np.float32 and not cast):
        return None
    # Taps first in memory: they are summed plane by plane.
    return np.asarray(value.transpose(2, 3, 0, 1), np.float32, order="C").transpose(2, 3, 0, 1)


def _is_doubling(graph: Graph, node: Node) -> bool:
    """Return whether a node repeats each pixel twice in both directions, and does nothing else."""
    if node.op != "Resize" or len(node.inputs) != 3:
        return False
    scales = graph.value(node.inputs[2])
    fits = scales is not None and scales.tolist() == [1, 1, 2, 2]
    return fits and all(node.attributes.get(key) == value for key, value in _NEAREST.items())


def _at_small_size(graph: Graph, node: Node, resize: Node, kernel: NDArray[Any], output: str) -> list[Node] | None:
    """Return the nodes that write ``output``, the convolution by ``kernel`` of what ``resize`` enlarges."""
    shape = graph.shapes.get(resize.inputs[0], ())
    if len(shape) != 4 or not shape[3]:
        return None
    bias = list(node.inputs[2:])
    nodes, rows = list[Node](), list[str]()
    for row in range(2):
        pair = []
        for column in range(2):
            name = f"{output}.{row}{column}"
            graph.add_constant(f"{name}.weight", phase_kernel(kernel, row, column))
            pads = [1 - row, 1 - column, row, column]
            nodes.append(Node("Conv", [resize.inputs[0], f"{name}.weight", *bias], [name], {"pads": pads}))
            nodes.append(Node("Unsqueeze", [name, _AXIS.format(4)], [f"{name}.pixels"]))
            pair.append(f"{name}.pixels")
        line = f"{output}.{row}"
        graph.add_constant(f"{line}.shape", np.array([0, 0, 0, -1], np.int64))
        nodes.append(Node("Concat", pair, [f"{line}.columns"], {"axis": 4}))
        nodes.append(Node("Reshape", [f"{line}.columns", f"{line}.shape"], [line]))
        nodes.append(Node("Unsqueeze", [line, _AXIS.format(3)], [f"{line}.line"]))
        rows.append(f"{line}.line")
    graph.add_constant(f"{output}.shape", np.array([0, 0, -1, 2 * shape[3]], np.int64))
    nodes.append(Node("Concat", rows, [f"{output}.rows"], {"axis": 3}))
    nodes.append(Node("Reshape", [f"{output}.rows", f"{output}.shape"], [output]))
    return nodes


def phase_kernel(kernel: NDArray[Any], row: int, column: int) -> NDArray[np.float32]:
    """Return the 2×2 kernel of the outputs of one parity, from a 3×3 kernel [O, I, 3, 3]."""
    planes = kernel.transpose(2, 3, 0, 1)
    phase = np.empty((2, 2, *planes.shape[2:]), np.float32)
    for (y, down), (x, right) in product(enumerate(TAPS[row]), enumerate(TAPS[column])):
        first, *others = product(down, right)
        phase[y, x] = planes[first]
        for tap in others:
            phase[y, x] += planes[tap]
    return phase.transpose(2, 3, 0, 1)
