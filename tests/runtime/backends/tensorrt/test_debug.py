"""Debug engines over the strict fake: a builder that plants a fault, and engines that ONNX Runtime computes."""

import json
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnx
import pytest
from fakes.cuda import MisuseError

from showface.cli import main
from showface.evaluation.parity.cases import Case
from showface.evaluation.parity.sources import source_of_bundle
from showface.evaluation.parity.torch_source import source_of_checkpoint
from showface.export.attribution import (
    ROUNDING,
    attribute_stages,
    compare_modules,
    first_jump,
    marked_model,
    run_marked,
)
from showface.export.engines import debug, process
from showface.runtime.backends.onnxruntime import open_chain, open_session
from showface.runtime.backends.tensorrt import loader
from showface.runtime.backends.tensorrt.debug import run_once
from showface.runtime.backends.tensorrt.loader import open_folder
from showface.runtime.backends.tensorrt.messages import library_logger
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import STAGES

STAGE = {stage.name: stage for stage in STAGES}
FAULTY = "body.spade4.shared.bias"
PLANT = f"""
def plant(proto):
    from onnx import numpy_helper
    for one in (i for i in proto.graph.initializer if i.name == "{FAULTY}"):
        values = numpy_helper.to_array(one)
        one.CopyFrom(numpy_helper.from_array(values + values.dtype.type(0.5), one.name))
"""
# Serves a request as the builder does, but for the engine: it is the graph, with a fault.
BUILDER = f"""
import json, onnx, sys
from showface.export.engines.request import EngineRequest
{PLANT}
request = EngineRequest.from_json(sys.stdin.readline())
proto = onnx.load(request.onnx)
plant(proto)
onnx.save(proto, request.engine)
open(sys.argv[1], "a").write(request.to_json() + "\\n")
print(json.dumps({{"result": {{}}}}))
"""


@pytest.fixture
def rig(make_rig, monkeypatch, tmp_path):
    """A rig on whose machine debug engines can be built, in a temporary folder that is looked at."""
    rig = make_rig(compute=lambda inputs: {})  # what the stages' own engines compute matters to validate alone
    for module in (loader, debug):
        monkeypatch.setattr(module, "load_library", lambda backend: rig.trt)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return rig


@pytest.fixture
def chain(rig):
    with open_folder(rig.folder, rig.trt, rig.cuda, rig.device) as chain:
        yield chain


@pytest.fixture
def builder(tmp_path):
    """Return the command of a builder, and the file where it keeps what it was asked for."""
    return [sys.executable, "-c", BUILDER, str(tmp_path / "requests")], tmp_path / "requests"


@pytest.fixture(scope="module")
def tensors(narrow_bundle, chain_inputs):
    image, mask = chain_inputs
    return open_chain(open_bundle(narrow_bundle), "cpu", 1).run({"image": image[:1], "mask": mask[:1]})


def marked(rig, stage):
    """Return a graph whose inner tensors are outputs too, and its names."""
    proto = onnx.load(rig.bundle.folder / f"{stage}.onnx")
    names = [n.output[0] for n in proto.graph.node if n.op_type in ("Conv", "Softmax", "MatMul")]
    return marked_model(proto, names), [*names, *STAGE[stage].outputs]


@pytest.mark.parametrize("stage", ["parser", "mrem"])
def test_every_marked_tensor_comes_back_and_nothing_stays(rig, tensors, stage):
    proto, names = marked(rig, stage)
    inputs = {name: tensors[name] for name in STAGE[stage].inputs}
    found = run_once(rig.trt, rig.cuda, proto.SerializeToString(), inputs)
    expected = run_marked(proto, inputs, names)
    assert set(found) == set(names)
    for name in names:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])
    assert rig.cuda.leaks() == []


def test_a_thread_chooses_its_device_before_it_has_a_runtime(rig, tensors):
    """A runtime works on the device of its thread; the fake refuses one in a thread that has chosen none."""
    data = marked(rig, "mrem")[0].SerializeToString()
    inputs = {name: tensors[name] for name in STAGE["mrem"].inputs}
    with ThreadPoolExecutor(1) as pool:
        logger = library_logger(rig.trt)
        with pytest.raises(MisuseError, match="has chosen none"):
            pool.submit(rig.trt.Runtime, logger).result()
        found = pool.submit(run_once, rig.trt, rig.cuda, data, inputs).result()
    assert set(STAGE["mrem"].outputs) <= set(found)


def failing(rig):
    make = rig.debug_engine

    def debug_engine(data):
        engine = make(data)
        engine.fails = "Error Code 2: OutOfMemory"
        return engine

    rig.debug_engine = debug_engine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rig: setattr(rig, "debug_engine", lambda data: None), r"tensorrt_rtx 1\.7\.1\.116 refuses the debug"),
        (lambda rig: setattr(rig, "batches", (2, 2, 4)), r"the debug engine refuses \(1, "),
        (lambda rig: setattr(rig.cuda, "budget", 10_000), "not enough memory"),
        (failing, "TensorRT could not run the debug engine: Error Code 2: OutOfMemory"),
    ],
)
def test_what_the_device_refuses_is_said_and_given_back(rig, tensors, change, said):
    change(rig)
    data = marked(rig, "mrem")[0].SerializeToString()
    with pytest.raises(ShowfaceError, match=said):
        run_once(rig.trt, rig.cuda, data, {name: tensors[name] for name in STAGE["mrem"].inputs})
    assert rig.cuda.leaks() == []


def test_a_debug_engine_has_the_options_of_the_stage_s_engine_and_is_built_once(
    rig, chain, builder, tensors, tmp_path, monkeypatch
):
    command, asked = builder
    monkeypatch.setattr(process, "WORKER", command)
    rig.edit_sidecar("mrem", tf32=True, optimization_level=5, workspace_mib=64, batches=[2, 3, 4])
    proto, names = marked(rig, "mrem")
    run = debug.debug_run(chain, STAGE["mrem"])
    for _ in range(2):
        run(proto, {name: tensors[name] for name in STAGE["mrem"].inputs}, names)
    (line,) = asked.read_text().splitlines()
    request = json.loads(line)
    assert (request["stage"], request["precision"], request["check_only"]) == ("mrem", "float32", False)
    wanted = {"backend": "tensorrt-rtx", "target": "sm_86", "tf32": True, "optimization_level": 5, "workspace_mib": 64}
    assert wanted.items() <= request["options"].items()
    assert request["options"]["batches"] == [1, 3, 4]
    assert len(rig.debug_engines) == 2
    assert list((tmp_path / "temporary").iterdir()) == []
    source = source_of_bundle(rig.bundle, chain)
    assert (source.identity.precision["mrem"], source.identity.precision["parser"]) == ("tf32", "float32")


def test_a_planted_fault_is_attributed_and_a_graph_in_onnx_runtime_shows_none(
    rig, chain, builder, narrow_checkpoint, tensors, monkeypatch
):
    origin, stage = source_of_checkpoint(narrow_checkpoint), STAGE["refiner"]
    proto = onnx.load(rig.bundle.folder / "refiner.onnx")
    compare = partial(compare_modules, proto, stage, origin.modules()["refiner"], tensors)
    assert first_jump(compare(), ROUNDING["float32"]) is None
    monkeypatch.setattr(process, "WORKER", builder[0])
    jump = first_jump(compare(debug.debug_run(chain, stage)), ROUNDING["float32"])
    assert jump.module == "refiner.body.spade4.shared"


@pytest.mark.parametrize(
    ("command", "installed", "said"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no space')"], True, "exit code 1; its last words: no space"),
        (process.WORKER, False, r"needs polygraphy; install it with: pip install 'showface\[rtx\]'"),
    ],
)
def test_a_debug_engine_that_is_not_built_leaves_the_verdict_standing(
    rig, chain, narrow_checkpoint, tensors, monkeypatch, tmp_path, command, installed, said
):
    find = debug.importlib.util.find_spec
    monkeypatch.setattr(debug.importlib.util, "find_spec", lambda name: find(name) if installed else None)
    origin, case = source_of_checkpoint(narrow_checkpoint), Case("face", {n: tensors[n] for n in ("image", "mask")})
    monkeypatch.setattr(process, "WORKER", command)
    run_of = partial(debug.debug_run, chain)
    found = attribute_stages(rig.bundle, origin, {"mrem": [case, case]}, {"mrem": "float32"}, run_of)
    assert [(entry["stage"], entry["module"], entry["modules"]) for entry in found] == [("mrem", None, [])]
    assert found[0]["sentence"].startswith("not attributed to a module: ")
    assert re.search(said, found[0]["sentence"])
    assert list((tmp_path / "temporary").iterdir()) == []


def test_validate_names_the_module_of_an_engine(
    rig, builder, narrow_checkpoint, face_folder, monkeypatch, capsys, tmp_path
):
    proto = onnx.load(rig.bundle.folder / "refiner.onnx")
    scope = {}
    exec(PLANT, scope)
    scope["plant"](proto)
    for stage in rig.bundle.manifest.stages:
        rig.engines[stage.name].compute = open_session(rig.bundle.model(stage), stage, None, 1).run
    rig.engines["refiner"].compute = lambda inputs: run_marked(proto, inputs, ["completed_image"])
    monkeypatch.setattr(loader, "cuda_device", lambda index: rig.device)
    monkeypatch.setattr("showface.runtime.backends.tensorrt.loader.CudaRuntime", lambda index: rig.cuda)
    monkeypatch.setattr(process, "WORKER", builder[0])
    images, masks = face_folder
    arguments = [
        "validate", rig.bundle.folder, "--checkpoint", narrow_checkpoint, "--backend", "tensorrt-rtx",
        "--images", images, "--masks", masks, "--limit", 1, "--no-generated", "--json", tmp_path / "result.json",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["--threads", "1", *map(str, arguments)])
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert "refiner: the error jumps in refiner.body.spade4.shared" in captured.out
    assert "a debug engine of refiner is built" in captured.err
    (finding,) = json.loads((tmp_path / "result.json").read_text())["attribution"]
    assert finding["module"] == "refiner.body.spade4.shared"
    assert len(rig.debug_engines) == 1
