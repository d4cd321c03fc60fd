"""What the builder asks of the library: the flags of an engine, TensorRT's branch, and the remedy of each refusal."""

import json
import os
import subprocess
import sys

import pytest

from showface.export.engines import process
from showface.export.engines.build import build_engines
from showface.export.engines.process import run_request
from showface.export.engines.request import BuildOptions, engine_request, is_current
from showface.export.engines.worker import refusal_of_builder
from showface.runtime.backends.tensorrt.library import load_library
from showface.runtime.backends.tensorrt.sidecar import EngineFolder, read_sidecar
from showface.runtime.stages import STAGES

# Serves one request and tells the flags of the builder's config. TensorRT's libraries are not to be had without its
# own index: its branch runs over TensorRT-RTX's library under the other name, which proves names and not kernels.
SERVE = """
import json, os, sys
enterprise = sys.argv[1] == "tensorrt"
import tensorrt_rtx
if enterprise:
    sys.modules["tensorrt"] = tensorrt_rtx
    tensorrt_rtx.__version__ = "11.0.0"
from showface.export.engines import worker
from showface.export.engines.request import EngineRequest
made, create = [], worker.create_config
def spy(*arguments):
    loader = create(*arguments)
    def load(builder, network):
        made.append(loader(builder, network))
        return made[0]
    return load
worker.create_config = spy
request = EngineRequest.from_json(sys.stdin.readline())
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
with open(os.devnull, "w") as events:
    outcome = worker.serve(request, events)
flags = [name for name, flag in tensorrt_rtx.BuilderFlag.__members__.items() if made and made[0].get_flag(flag)]
profiles = made[0].num_optimization_profiles if made else 0
answers.write(json.dumps({"outcome": outcome, "flags": flags, "profiles": profiles}))
answers.flush()
os._exit(0)  # the config that was kept must not outlive its builder
"""


def serve(request):
    done = subprocess.run(
        [sys.executable, "-c", SERVE, request.options.backend],
        input=request.to_json() + "\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("tf32", "profiles"), [(False, 1), (True, 2)])
def test_rtx_engines_take_all_memory_from_the_chain(bundle_copy, options, tmp_path, tf32, profiles):
    chosen = options(tf32=tf32, profiles=profiles, batches=(1, 2, 2))
    request = engine_request(bundle_copy(), STAGES[3], chosen, tmp_path / "engine")
    answer = serve(request)
    assert "result" in answer["outcome"], answer
    assert "REQUIRE_USER_ALLOCATION" in answer["flags"]
    assert ("TF32" in answer["flags"]) is tf32
    assert answer["profiles"] == profiles


def test_the_branch_of_tensorrt_runs(bundle_copy, options, tmp_path):
    cache = tmp_path / "timing.cache"
    chosen = options(backend="tensorrt", optimization_level=1, workspace_mib=64, timing_cache=str(cache))
    request = engine_request(bundle_copy(), STAGES[3], chosen, tmp_path / "engine")
    answer = serve(request)
    # The library says that it cannot time kernels without a GPU, or builds: either way every name was there.
    assert {"result", "refused"} & set(answer["outcome"]), answer
    assert "TF32" not in answer["flags"]
    assert not (tmp_path / "timing.cache.lock").exists()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Unable to load library: libnvinfer_lean.so.11", "pip install tensorrt_lean, or apt install libnvinfer-lean"),
        ("Cuda error: out of memory", "lower the greatest batch"),
        ("no kernel for operation 'node_matmul'", "raise the optimization level to 5"),
        ("", "raise the optimization level to 5"),
    ],
)
def test_each_reason_has_its_remedy(said, remedy):
    refusal = refusal_of_builder(said)
    assert remedy in refusal.remedy
    assert refusal.reason == (said or "the builder gave no reason")


@pytest.mark.parametrize(
    ("seen", "device", "found"), [(None, 0, "0"), (None, 2, "2"), ("3,5", 1, "5"), ("GPU-a,GPU-b", 0, "GPU-a")]
)
def test_tensorrt_builds_on_the_device_that_was_asked_for(
    bundle_copy, options, tmp_path, monkeypatch, seen, device, found
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    tell = "import json, os; print(json.dumps({'result': {'seen': os.environ.get('CUDA_VISIBLE_DEVICES')}}))"
    bundle = bundle_copy()
    request = engine_request(bundle, STAGES[0], options(backend="tensorrt", device=device), tmp_path / "engine")
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-c", tell))
    assert run_request(request).facts == {"seen": found}
    request = engine_request(bundle, STAGES[0], options(), tmp_path / "engine")
    other = run_request(request).facts
    assert other == {"seen": os.environ.get("CUDA_VISIBLE_DEVICES")}


def test_engines_of_another_system_are_built_again_where_they_are_not_portable(built_copy, options):
    bundle, version = built_copy, load_library("tensorrt-rtx").__version__
    found = read_sidecar(EngineFolder(bundle, "tensorrt-rtx", "sm_86"), "mrem")
    assert found.user_allocation
    assert is_current(found, bundle, options(), version)
    path = EngineFolder(bundle, "tensorrt-rtx", "sm_86").sidecar("mrem")
    path.write_text(path.read_text().replace('"user_allocation": true', '"user_allocation": false'))
    changed = read_sidecar(EngineFolder(bundle, "tensorrt-rtx", "sm_86"), "mrem")
    assert not is_current(changed, bundle, options(), version)
    rows = build_engines(bundle, options(), version, "")
    assert [row.stage for row in rows if row.status == "built"] == ["mrem"]


def test_engines_are_tuned_for_the_batch_that_is_sent():
    assert BuildOptions("tensorrt-rtx", "sm_86").batches == (1, 8, 8)
