"""Float graphs made ready for quantisation: what is rewritten computes what is stored."""

import numpy as np
import pytest

from showface.calibration.placement import default_float, layer_of, quantizable
from showface.calibration.settings import Target
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.bundle import open_bundle


def test_the_coarse_stage_has_none_left(float_graphs, recorded, narrow_bundle):
    bundle = open_bundle(narrow_bundle)
    stage, face = bundle.manifest.stages[0], next(iter(recorded))
    stored = open_session(bundle.model(stage), stage, None, 1)
    for target in Target:
        graph = float_graphs[target]["coarse"]
        assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
        session = open_session(graph.SerializeToString(), stage, None, 1)
        inputs = {name: face.tensors[name] for name in stage.inputs}
        (after,), (before,) = session.run(inputs).values(), stored.run(inputs).values()
        np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("name", ["coarse", "refiner"])
def test_convolutions_of_few_outputs_keep_their_layer_and_its_rule(float_graphs, name):
    """On a CPU they compute rows; a plan names them as before, and the rules keep the same ones in float."""
    plain, rows = (float_graphs[target][name] for target in (Target.TENSORRT, Target.CPU))
    written = [node for node in rows.graph.node if node.op_type == "Conv" and node.name.endswith("_rows")]
    assert written
    assert {layer_of(node) for node in written} < {layer_of(node) for node in plain.graph.node}
    assert list(quantizable(plain, name, Target.CPU)) == list(quantizable(rows, name, Target.CPU))
    assert default_float(plain, name, Target.CPU) == default_float(rows, name, Target.CPU)
