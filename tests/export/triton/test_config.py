"""The texts of a model repository, checked with Triton's own definition of them against the stage table."""

from dataclasses import replace

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from showface.export.triton.config import Serving, configs, stage_config
from showface.export.triton.repository import text_of, write_repository
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.stages import STAGES, TENSORS, VARIANTS

DTYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}


def parsed(folder):
    return {p.parent.name: text_format.Parse(p.read_text(), ModelConfig()) for p in folder.glob("*/config.pbtxt")}


@pytest.fixture(scope="module")
def repository(narrow_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "models"
    names = write_repository(open_bundle(narrow_bundle), folder, Serving(max_batch=4, instances=2, queue_delay=700))
    assert set(names) == set(parsed(folder))
    return folder


def test_there_are_five_models_and_two_ensembles(repository, narrow_bundle):
    found, manifest = parsed(repository), open_bundle(narrow_bundle).manifest
    assert set(found) == {"showface", "showface_stages", *(f"showface_{stage.name}" for stage in STAGES)}
    for stage in STAGES:
        config = found[f"showface_{stage.name}"]
        for names, entries in ((stage.inputs, config.input), (stage.outputs, config.output)):
            assert tuple(entry.name for entry in entries) == names
            for entry in entries:
                tensor = TENSORS[entry.name]
                dims = tensor.resolve(1, manifest.image_size, manifest.code_channels)[1:]
                assert (tuple(entry.dims), entry.data_type) == (dims, getattr(model_config_pb2, DTYPES[tensor.dtype]))
        assert (config.backend, config.max_batch_size) == ("onnxruntime", 4)
        assert [group.count for group in config.instance_group] == [2]
        assert config.dynamic_batching.max_queue_delay_microseconds == 700
        assert [warm.batch_size for warm in config.model_warmup] == [1, 4]
        assert all(set(warm.inputs) == set(stage.inputs) for warm in config.model_warmup)
        graph = repository / f"showface_{stage.name}" / "1" / "model.onnx"
        assert graph.read_bytes() == (narrow_bundle / f"{stage.name}.onnx").read_bytes()


def test_the_ensembles_chain_the_stages_by_the_names_of_the_table(repository):
    found = parsed(repository)
    for name, outputs in (
        ("showface", ["completed_image"]),
        ("showface_stages", [o for stage in STAGES for o in stage.outputs]),
    ):
        config = found[name]
        assert [entry.name for entry in config.input] == ["image", "mask"]
        assert [entry.name for entry in config.output] == outputs
        known = {"image", "mask"}
        for step, stage in zip(config.ensemble_scheduling.step, STAGES, strict=True):
            assert step.model_name == f"showface_{stage.name}"
            assert dict(step.input_map) == {n: n for n in stage.inputs}
            assert set(step.input_map.values()) <= known
            known |= set(step.output_map.values())
        assert (repository / name / "1").is_dir()


def test_a_variant_whose_parser_steers_nothing_leaves_it_out_of_the_short_ensemble(narrow_bundle):
    without = replace(open_bundle(narrow_bundle).manifest, variant="no-memory")
    found = configs(without, Serving())
    steps = [step["model_name"] for step in found["showface"]["ensemble_scheduling"]["step"]]
    assert steps == ["showface_coarse", "showface_memory", "showface_refiner"]
    assert len(found["showface_stages"]["ensemble_scheduling"]["step"]) == len(VARIANTS["no-memory"])


@pytest.mark.parametrize(
    "change", [{"max_batch": 4}, {"backend": 1}, {"input": [{"name": "image", "data_type": "TYPE_FLOAT"}]},
               {"instance_group": [{"kind": "KIND_NPU"}]}, {"max_batch_size": "many"}]
)  # fmt: skip
def test_a_text_that_is_none_of_tritons_is_not_written(narrow_bundle, change):
    config = stage_config(STAGES[0], open_bundle(narrow_bundle).manifest, Serving())
    text_of(config)
    with pytest.raises(ValueError, match="none of Triton's"):
        text_of({**config, **change})


def test_what_triton_cannot_run_is_refused_with_the_reason(narrow_bundle, tmp_path):
    bundle = open_bundle(narrow_bundle)
    for serving, reason in (
        (Serving("tensorrt-rtx"), "no backend for engines of TensorRT-RTX, only for plans of TensorRT"),
        (Serving("openvino"), "openvino: is no backend of Triton's that showface writes for"),
        (Serving("tensorrt"), "no engines of tensorrt; build them, or use onnxruntime"),
    ):
        with pytest.raises(UsageError, match=reason):
            write_repository(bundle, tmp_path / "models", serving)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_repository(bundle, tmp_path / "there", Serving())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
