"""The real thing, where there is a GPU: engines are built for it, opened on it, and prove themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import golden_source, source_of_bundle
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.export.engines.build import build_engines
from showface.export.engines.request import BuildOptions
from showface.export.engines.targets import rtx_targets
from showface.runtime.backends.cuda_devices import cuda_device
from showface.runtime.backends.onnxruntime import CUDA_PROVIDER, open_chain
from showface.runtime.backends.tensorrt.engine import Graphs
from showface.runtime.backends.tensorrt.library import load_library
from showface.runtime.backends.tensorrt.loader import OpenOptions, open_engines
from showface.runtime.bundle import default_bundle, open_bundle

GPU = cuda_device(0)
pytestmark = pytest.mark.skipif(GPU is None, reason="needs a CUDA device")


def equals_pytorch(bundle, chain):
    """Return whether a loaded bundle computes its golden outputs."""
    reference, case = golden_source(bundle)
    source = source_of_bundle(bundle, chain)
    tolerances = plan_tolerances(source.identity.precision, None, {})
    return compare_sources(reference, source, [case], tolerances).result["passed"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a copy of the default bundle with engines for this GPU."""
    pytest.importorskip("tensorrt_rtx")
    trt = load_library("tensorrt-rtx")
    if GPU.target not in rtx_targets(trt):
        pytest.skip(f"TensorRT-RTX {trt.__version__} does not build for {GPU.name} ({GPU.target})")
    folder = tmp_path_factory.mktemp("gpu")
    for path in default_bundle().iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    bundle = open_bundle(folder)
    options = BuildOptions("tensorrt-rtx", GPU.target, (1, 2, 4))
    rows = build_engines(bundle, options, trt.__version__, "")
    assert {row.status for row in rows} == {"built"}
    return bundle


@pytest.mark.parametrize("cuda_graph", list(Graphs))
def test_the_engines_equal_pytorch(built, cuda_graph):
    golden = built.golden()
    with open_engines(built, "tensorrt-rtx", options=OpenOptions(cuda_graph=cuda_graph)) as chain:
        assert equals_pytorch(built, chain)
        many = [np.concatenate([golden[name]] * 4) for name in ("image", "mask")]  # beyond the profile
        once = np.concatenate([chain.complete(golden["image"], golden["mask"])] * 4)
        np.testing.assert_allclose(chain.complete(*many), once, atol=1e-4)


@pytest.mark.skipif(
    CUDA_PROVIDER not in ort.get_available_providers(), reason="the installed ONNX Runtime is built for the CPU"
)
def test_onnx_runtime_on_cuda_equals_pytorch():
    bundle = open_bundle()
    assert equals_pytorch(bundle, open_chain(bundle, "cuda:0"))


def test_the_device_chain_is_right_on_any_gpu(tmp_path):
    """Streams, pinned memory, slots, graphs and clean-up on real CUDA; CuPy plays the engines."""
    pytest.importorskip("cupy")
    script = Path(__file__).resolve().parents[4] / "benchmarks" / "gpu.py"
    command = [sys.executable, script, tmp_path, "--quick", "--only", "chain", "lost-device"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert {section["status"] for section in sections.values()} == {"done"}
