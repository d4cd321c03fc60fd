"""The marked graph of every stage parses and builds for real, with each marked tensor as an output of its type."""

import hashlib
import tempfile

import onnx
import pytest

from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.torch_source import source_of_checkpoint
from showface.export.attribution import compare_modules, run_marked
from showface.export.engines.debug import build_debug_engine
from showface.export.engines.request import BuildOptions, EngineRequest
from showface.runtime.backends.tensorrt.sidecar import SIDECAR_SCHEMA, Sidecar
from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import STAGES


@pytest.fixture(scope="module")
def marked(narrow_bundle, narrow_checkpoint, chain_inputs):
    """Return, by stage, the graph that attribution runs and what it computes."""
    origin, found = source_of_checkpoint(narrow_checkpoint), {}
    tensors = origin.chain(Case("face", {"image": chain_inputs[0][:1], "mask": chain_inputs[1][:1]}))
    for stage in STAGES:

        def keep(proto, inputs, names, stage=stage):
            computed = run_marked(proto, inputs, names)
            found[stage.name] = proto, computed
            return computed

        proto = onnx.load(narrow_bundle / f"{stage.name}.onnx")
        compare_modules(proto, stage, origin.modules()[stage.name], tensors, keep)
    return found


def test_all_stages_build_with_all_their_marked_tensors(marked, serve_all, tmp_path):
    requests = []
    for stage, (proto, _) in marked.items():
        data, path = proto.SerializeToString(), tmp_path / f"{stage}.onnx"
        path.write_bytes(data)
        digest, engine = hashlib.sha256(data).hexdigest(), str(tmp_path / f"{stage}.engine")
        options = BuildOptions("tensorrt-rtx", "sm_86", (1, 1, 4))
        requests.append(EngineRequest(stage, str(path), digest, engine, "float32", False, options))
    events = dict(zip(marked, serve_all(requests), strict=True))
    assert set(events) == {stage.name for stage in STAGES}
    for stage, (_, computed) in marked.items():
        dtypes = events[stage]["result"]["dtypes"]
        assert {name: dtypes[name] for name in computed} == {n: array.dtype.name for n, array in computed.items()}
        assert (tmp_path / f"{stage}.engine").stat().st_size > 1000


@pytest.fixture
def sidecar():
    return Sidecar(
        schema_version=SIDECAR_SCHEMA, stage="mrem", backend="tensorrt-rtx", target="sm_86", gpu="",
        tensorrt_version="1.7.1.116", version_compatible=False, batches=(1, 1, 4), profiles=1, dtypes={},
        precision="float32", products={}, tf32=True, optimization_level=3, workspace_mib=None, user_allocation=True,
        platform="linux-x86_64", onnx_sha256="",
        engine_sha256="", engine_bytes=0, build_seconds=0.0,
    )  # fmt: skip


def test_a_builder_s_process_makes_it_and_leaves_no_file(marked, sidecar, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    proto, computed = marked["mrem"]
    engine = build_debug_engine(proto.SerializeToString(), sidecar)
    assert len(engine) > 1000
    assert len(computed) > 1
    with pytest.raises(ShowfaceError, match=r"the debug engine was not built: stage mrem: .*; export the bundle again"):
        build_debug_engine(b"no graph", sidecar)
    assert list(tmp_path.iterdir()) == []
