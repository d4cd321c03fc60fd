"""TensorRT-RTX parses and builds every stage of the ``tensorrt`` target, strongly typed; no GPU is needed for that."""

import pytest

from showface.calibration.settings import Target
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
def test_parses_and_builds(stage, made):
    graph, _ = made(stage, Target.TENSORRT)
    assert len(build(graph.SerializeToString(), stage)) > 1000
