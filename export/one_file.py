"""All stages of a bundle in one ONNX file, joined by the names of their tensors.

For what runs one model: browsers, OpenVINO, servers of single models. On a device that showface itself runs on, five
engines are as fast and say which stage is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from showface.runtime.backends.chain import Tensors
from showface.runtime.backends.onnxruntime import session_options
from showface.runtime.bundle import Bundle, check_new
from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.files import write_file
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, TENSORS, Stage
from showface.runtime.version import __version__

WHOLE = Stage("joined", CHAIN_INPUTS, (CHAIN_OUTPUT,))


def export_one_file(bundle: Bundle, path: Path, threads: int | None = None) -> dict[str, Any]:
    """Write a bundle's stages as one new ONNX file that takes ``image`` and ``mask`` and returns ``completed_image``.

    Returns:
        ``{"nodes": int, "bytes": int, "faces": int}``; so many golden faces came out bit by bit as from the chain.

    Raises:
        UsageError: the file exists, or the stages have different operator sets.
        ShowfaceError: the joined graph computes something else; nothing is written.
    """
    check_new(path)
    proto = join(bundle)
    data = proto.SerializeToString()
    golden = bundle.golden()
    image, mask = golden["image"], golden["mask"]
    expected = {"image": image, "mask": mask}
    for stage in bundle.manifest.stages:
        expected.update(_as_written(bundle.model(stage), stage, expected, threads))
    found = _as_written(data, WHOLE, expected, threads)
    if not np.array_equal(found[CHAIN_OUTPUT], expected[CHAIN_OUTPUT]):
        raise ShowfaceError("the joined graph computes something else than the stages one by one; nothing was kept")
    try:
        write_file(path, data)
    except OSError as error:  # it names the temporary file
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return {"nodes": len(proto.graph.node), "bytes": len(data), "faces": len(image)}


def join(bundle: Bundle) -> ModelProto:
    """Return the stages of a bundle as one graph; inner names get their stage before them.

    Raises:
        UsageError: the stages have different operator sets.
    """
    stages = bundle.manifest.stages
    models = {stage.name: onnx.load_model_from_string(bundle.model(stage)) for stage in stages}
    opsets = {tuple(sorted((o.domain, o.version) for o in model.opset_import)) for model in models.values()}
    if len(opsets) != 1:
        raise UsageError(f"{bundle.folder}: its stages have different operator sets; export the bundle again")
    nodes: list[NodeProto] = []
    initializers = []
    for stage in stages:
        graph = models[stage.name].graph
        shared = {*stage.inputs, *stage.outputs}
        for tensor in graph.initializer:
            tensor.name = _renamed(tensor.name, stage.name, shared)
            initializers.append(tensor)
        for node in graph.node:
            _rename(node, stage.name, shared)
            nodes.append(node)
    size, channels = bundle.manifest.image_size, bundle.manifest.code_channels
    ends = {name: _end(name, size, channels) for name in (*CHAIN_INPUTS, CHAIN_OUTPUT)}
    graph = helper.make_graph(
        nodes, "showface", [ends[name] for name in CHAIN_INPUTS], [ends[CHAIN_OUTPUT]], initializers
    )
    first = models[stages[0].name]
    proto = helper.make_model(graph, opset_imports=list(first.opset_import), ir_version=first.ir_version)
    proto.producer_name, proto.producer_version = "showface", __version__
    facts = {
        "variant": bundle.manifest.variant,
        "precision": ", ".join(f"{name} {kind}" for name, kind in bundle.manifest.precision.items()),
        "checkpoint_sha256": bundle.manifest.checkpoint_sha256,
        **{name: TENSORS[name].description for name in ends},
    }
    helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    return proto


def _end(name: str, size: int, channels: int) -> Any:
    shape = list(TENSORS[name].resolve(1, size, channels))
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(TENSORS[name].dtype))
    return helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])


def _rename(node: NodeProto, stage: str, shared: set[str]) -> None:
    """Put the stage before the names of a node, of what it reads and writes, and of what its subgraphs capture."""
    node.name = f"{stage}/{node.name}"
    node.input[:] = [_renamed(name, stage, shared) for name in node.input]
    node.output[:] = [_renamed(name, stage, shared) for name in node.output]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for tensor in (*graph.input, *graph.output, *graph.initializer):
                tensor.name = _renamed(tensor.name, stage, shared)
            for inner in graph.node:
                _rename(inner, stage, shared)


def _renamed(name: str, stage: str, shared: set[str]) -> str:
    return name if not name or name in shared else f"{stage}/{name}"


def _as_written(data: bytes, stage: Stage, given: Tensors, threads: int | None) -> dict[str, NDArray[Any]]:
    """Run a graph node by node, as it is written.

    ONNX Runtime's optimisations work across the borders of the stages in the joined graph and round otherwise there:
    up to 2e-7 in the result.
    """
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs = session.run(list(stage.outputs), {name: given[name] for name in stage.inputs})
    return dict(zip(stage.outputs, outputs, strict=True))
