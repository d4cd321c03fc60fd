"""TensorRT-RTX parses and builds every stage of the ``tensorrt`` target, strongly typed; no GPU is needed for that."""

import pytest

from showface.calibration.placement import Target, default_float, quantizable
from showface.calibration.quantize import quantize
from showface.calibration.ranges import Method
from showface.calibration.workshop import stage_ranges
from showface.runtime.stages import STAGES, TENSORS

trt = pytest.importorskip("tensorrt_rtx")
CAPABILITIES = ("SM86", "SM89", "SM120")


def build(data, stage, size=256, channels=16):
    """Return the engine's bytes for ``CAPABILITIES``; an assertion names what the parser or the builder refuses."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(data), [str(parser.get_error(k)) for k in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(CAPABILITIES)
    for k, name in enumerate(CAPABILITIES):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), k)
    profile = builder.create_optimization_profile()
    for name in stage.inputs:
        profile.set_shape(name, *(TENSORS[name].resolve(batch, size, channels) for batch in (1, 1, 2)))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, f"{stage.name} does not build"
    return bytes(engine)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_parses_and_builds(stage, graphs, recorded):
    graph = graphs[stage.name]
    kept = default_float(graph, stage.name, Target.TENSORRT)
    groups = [group for group in quantizable(graph, stage.name, Target.TENSORRT) if group not in kept]
    ranges = stage_ranges(graph, stage, recorded, Target.TENSORRT, Method.MINMAX, 1)["minmax"]
    data = quantize(graph, stage.name, Target.TENSORRT, groups, ranges).SerializeToString()
    assert len(build(data, stage)) > 1000
