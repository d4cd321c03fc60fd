"""ONNX Runtime's real CUDA provider over a runtime that only pretends: nodes are placed, options judged, tensors bound.

A process of its own has the pretended libraries, so that no other test sees a device.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from fakes.pretended_cuda import build
from onnx import TensorProto, helper

from showface.export.float16_bundle import lower
from showface.runtime.backends.onnxruntime import CUDA_OPTIONS
from showface.runtime.bundle import default_bundle, open_bundle

PROVIDER = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
if not PROVIDER.exists():
    pytest.skip("this ONNX Runtime is built for the CPU", allow_module_level=True)
if any(shutil.which(tool) is None for tool in ("cc", "nm")):
    pytest.skip("needs a C compiler and nm (Debian: apt-get install gcc)", allow_module_level=True)

SCRIPT = """
import json, sys
from pathlib import Path
from showface.runtime.backends import onnxruntime as backend
from showface.runtime.backends.batches import Shapes
from showface.runtime.backends.onnxruntime_binding import BoundChain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.stages import Stage

class Unrun(BoundChain):
    def complete(self, image, mask):  # the first batch, which cannot be run here
        return image

found = {"opened": {}, "bound": {}, "devices": backend.cuda_device_count()}
for folder in sys.argv[2:]:
    bundle = open_bundle(folder)
    for layout in (False, True):
        graphs = bundle.manifest.graphs
        sessions = [backend.open_session(bundle.model(s), s, 0, 1, channels_last=layout) for s in graphs]
        found["opened"][f"{Path(folder).name} {layout}"] = {
            one.stage.name: one.session.get_provider_options()[backend.CUDA_PROVIDER] for one in sessions
        }
    chain = Unrun(sessions[: len(bundle.manifest.stages)], Shapes.of_bundle(bundle), "bound", "cuda")
    turn = chain.bind(8)
    found["bound"][Path(folder).name] = {name: [v.device_name(), v.shape()] for name, v in turn.values.items()}
for name, change in (("option", {"no_such_option": "1"}), ("node", {})):
    backend.CUDA_OPTIONS.update(change)
    try:
        backend.open_session(Path(sys.argv[1]).read_bytes(), Stage("probe", ("image",), ("found",)), 0, 1)
    except UsageError as error:
        found[name] = str(error)
    for key in change:
        del backend.CUDA_OPTIONS[key]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory, narrow_bundle):
    """Return what a process saw that opened a float32 and a float16 bundle on the provider."""
    folder = tmp_path_factory.mktemp("provider")
    half, probe = folder / "half", folder / "probe.onnx"
    shutil.copytree(narrow_bundle, half)
    lower(open_bundle(half))
    value = helper.make_tensor_value_info
    node = helper.make_node("Unique", ["image"], ["found"])  # which CUDA has no kernel for
    graph = helper.make_graph(
        [node], "probe", [value("image", TensorProto.FLOAT, [9])], [value("found", TensorProto.FLOAT, None)]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), probe)
    (folder / "libraries").mkdir()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(build(PROVIDER, folder / "libraries"))}
    command = [sys.executable, "-c", SCRIPT, probe, default_bundle(), half]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "[W:" not in done.stderr  # six warnings of every chain would reach the terminal
    return json.loads(done.stdout)


def test_every_node_of_every_stage_has_its_place_on_cuda(found):
    """Sessions are opened with the CPU forbidden, in both layouts of the convolutions."""
    assert found["devices"] == 1
    assert list(found["opened"]) == ["default_bundle False", "default_bundle True", "half False", "half True"]
    for name, stages in found["opened"].items():
        assert len(stages) >= 5
        for options in stages.values():
            assert {key: options[key] for key in CUDA_OPTIONS} == CUDA_OPTIONS
            assert options["prefer_nhwc"] == str(int(name.endswith("True")))


def test_a_node_without_a_place_on_cuda_is_refused(found):
    assert "stage probe: ONNX Runtime cannot load it on CUDA device 0" in found["node"]
    assert "its graph has a node that ONNX Runtime's CUDA provider cannot run" in found["node"]


def test_an_option_that_the_provider_does_not_know_is_refused(found):
    assert "no_such_option" in found["option"]


def test_all_tensors_of_the_chain_are_bound_on_the_device(found):
    for bound in found["bound"].values():
        assert {device for device, _ in bound.values()} == {"cuda"}
        assert {shape[0] for _, shape in bound.values()} == {8}
        assert {"image", "coarse_image", "semantic_map", "guidance", "completed_image"} <= set(bound)
