"""Convert a stage's graph to float16 around its declared float32 islands; inputs and outputs stay float32.

The library converters (ONNX Runtime's ``transformers.float16``, the same code as onnxconverter-common) write
two nodes of one name where a value enters an island twice, which ONNX Runtime 1.31 then refuses to load, and
they know islands by operator only, not by module.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from showface.runtime.errors import ShowfaceError
from showface.training.networks.islands import Island

from .graph import module_of, producers, readers

PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
FLOAT32_INPUTS = {"Resize": (1, 2)}  # of the operator's signature: roi and scales
HALF_MAX = float(np.finfo(np.float16).max)
HALF, SINGLE = "float16", "float32"
TYPES = {HALF: TensorProto.FLOAT16, SINGLE: TensorProto.FLOAT}


def convert_to_float16(proto: onnx.ModelProto, islands: Sequence[Island], stage: str) -> onnx.ModelProto:
    """Return the float16 graph of a float32 one.

    Args:
        proto: the exported stage; its weights may be stored as float16 with a cast.
        islands: what stays in float32.
        stage: its name, for errors.

    Raises:
        ShowfaceError: a weight does not fit float16; it and its module are named.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    _unfold_weights(model)
    _Converter(model, island_nodes(model, islands), stage).convert()
    del model.graph.value_info[:]
    model = shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return model


def float_values(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all float32 values of a graph with inferred types, initialisers included."""
    typed = (*graph.value_info, *graph.input, *graph.output)
    names = {v.name for v in typed if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {i.name for i in graph.initializer if i.data_type == TensorProto.FLOAT}


def _unfold_weights(model: onnx.ModelProto) -> None:
    """Turn weights stored as float16 with a cast into plain float32 initialisers."""
    graph = model.graph
    stored = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT16}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in stored]
    for node in casts:
        values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    for name in {node.input[0] for node in casts}:
        graph.initializer.remove(stored[name])


def island_nodes(model: onnx.ModelProto, islands: Sequence[Island]) -> set[str]:
    """Return the names of the nodes in float32: those declared, and those between them.

    An island may match nothing: a variant of the chain lacks some modules.
    """
    chosen = {
        node.name
        for node in model.graph.node
        for island in islands
        if node.op_type in island.operators and fnmatchcase(module_of(node), island.scope)
    }
    return chosen | _between(model, chosen)


def _between(model: onnx.ModelProto, chosen: set[str]) -> set[str]:
    """Return the nodes all of whose producers and consumers are islands: a cast there and back would only round."""
    producer, consumers = producers(model), readers(model)
    constants = {i.name for i in model.graph.initializer}
    outputs = {o.name for o in model.graph.output}

    def enclosed(node: NodeProto) -> bool:
        if node.op_type in PRODUCTS or node.name in chosen:
            return False
        sources = [producer[name] for name in node.input if name in producer]
        targets = [n for name in node.output for n in consumers.get(name, [])]
        ends_here = any(name in outputs for name in node.output)
        inside = all(n.name in chosen for n in sources) and all(n.name in chosen for n in targets)
        return inside and (bool(targets) or ends_here) and any(name not in constants for name in node.input)

    return {n.name for n in model.graph.node if enclosed(n)}


class _Converter:
    """One walk over the nodes, in their order, that keeps track of which values have become float16."""

    def __init__(self, model: onnx.ModelProto, island: set[str], stage: str) -> None:
        self.graph, self.island, self.stage = model.graph, island, stage
        self.floats = float_values(shape_inference.infer_shapes(model).graph)
        self.constants = {i.name: i for i in self.graph.initializer}
        self.halves: set[str] = set()
        self.nodes: list[NodeProto] = []
        self.copies: dict[tuple[str, str], str] = {}  # (value, type) -> its name in that type
        self.results = {o.name for o in self.graph.output}

    def convert(self) -> None:
        for node in self.graph.node:
            if node.name in self.island:
                self._keep(node)
            else:
                self._lower(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [i for i in self.graph.initializer if i.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _keep(self, node: NodeProto) -> None:
        """Compute a node in float32."""
        for k, name in enumerate(node.input):
            if name in self.halves:
                node.input[k] = self._as(name, SINGLE, node)
        self.nodes.append(node)

    def _lower(self, node: NodeProto) -> None:
        """Compute a node in float16, where it has to do with floats at all."""
        exempt = FLOAT32_INPUTS.get(node.op_type, ())
        for k, name in enumerate(node.input):
            if name in self.floats and name not in self.halves and k not in exempt:
                node.input[k] = self._as(name, HALF, node)
        renamed = {}
        for k, name in enumerate(node.output):
            if name not in self.floats:
                continue
            if name in self.results:
                node.output[k] = renamed[name] = f"{name}.{HALF}"
            self.halves.add(node.output[k])
            self.floats.add(node.output[k])
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)
        for name, half in renamed.items():
            self.copies[name, HALF] = half  # a later reader takes it without a cast
            self._cast(half, name, SINGLE, node)

    def _as(self, name: str, dtype: str, reader: NodeProto) -> str:
        """Return the name of ``name`` in ``dtype``, cast once for all its readers."""
        if (name, dtype) not in self.copies:
            target = f"{name}.{dtype}"
            if name in self.constants:
                self.graph.initializer.append(self._half_constant(name, target, reader))
            else:
                self._cast(name, target, dtype, reader)
            self.copies[name, dtype] = target
        return self.copies[name, dtype]

    def _cast(self, source: str, target: str, dtype: str, reader: NodeProto) -> None:
        node = helper.make_node("Cast", [source], [target], f"{source}.to_{dtype}", to=TYPES[dtype])
        node.metadata_props.extend(reader.metadata_props)
        self.nodes.append(node)

    def _half_constant(self, name: str, target: str, reader: NodeProto) -> TensorProto:
        values = numpy_helper.to_array(self.constants[name])
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= HALF_MAX:
            raise ShowfaceError(
                f"stage {self.stage}: {name!r}, read by module {module_of(reader)!r}, reaches {largest:g}, beyond "
                "float16; make the module an island in training/networks/islands.py, or export with precision fp32"
            )
        return numpy_helper.from_array(values.astype(np.float16), target)


def half_shares(proto: onnx.ModelProto) -> dict[str, float]:
    """Return the share of float16 among the elements of float weights, and among the operators on floats."""
    graph = shape_inference.infer_shapes(proto).graph
    weights = {True: 0, False: 0}
    for initializer in graph.initializer:
        if initializer.data_type in TYPES.values():
            count = int(np.prod(initializer.dims, dtype=np.int64))
            weights[initializer.data_type == TensorProto.FLOAT16] += count
    single = float_values(graph)
    half = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    lowered = sum(any(o in half for o in n.output) for n in graph.node if n.op_type != "Cast")
    kept = sum(any(o in single for o in n.output) for n in graph.node if n.op_type != "Cast")
    return {
        "weights": weights[True] / max(weights[True] + weights[False], 1),
        "operators": lowered / max(lowered + kept, 1),
    }


def assert_float16(proto: onnx.ModelProto, stage: str) -> None:
    """Check that what was asked for is what the graph computes: every product in float16, its weights too.

    Raises:
        ShowfaceError: a convolution or matrix product reads float32; the node and its module are named.
    """
    single = float_values(shape_inference.infer_shapes(proto).graph)
    products = [n for n in proto.graph.node if n.op_type in PRODUCTS]
    for node in products:
        if any(name in single for name in (*node.input, *node.output)):
            raise ShowfaceError(
                f"stage {stage}: float16 was asked for, but {node.op_type} {node.name!r} of module "
                f"{module_of(node)!r} computes in float32; export the bundle again"
            )
    if not products:
        raise ShowfaceError(f"stage {stage}: float16 was asked for, but its graph holds no product to compute in it")
