"""The configurations of the models and ensembles, as plain data in the terms of Triton's ``ModelConfig``.

Names, types, dimensions and maps come from the stage table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from showface.runtime.bundle import Manifest
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, TENSORS, Stage

TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}
ENSEMBLE, ENSEMBLE_OF_ALL, PHOTO = "showface", "showface_stages", "showface_photo"
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Serving:
    """How Triton runs the models.

    Attributes:
        backend: ``onnxruntime`` or ``tensorrt``.
        max_batch: greatest batch.
        instances: of each model, per device.
        queue_delay: microseconds that a stage waits for a batch to fill.
        photo: with the Python model that takes and returns pictures.
    """

    backend: str = "onnxruntime"
    max_batch: int = 8
    instances: int = 1
    queue_delay: int = 1000
    photo: bool = False


def model_name(stage: Stage) -> str:
    """Return the name of a stage's model."""
    return f"{ENSEMBLE}_{stage.name}"


def stage_config(stage: Stage, manifest: Manifest, serving: Serving) -> Config:
    """Return the configuration of a stage's model."""
    tensorrt = serving.backend == "tensorrt"
    return {
        "name": model_name(stage),
        "backend": serving.backend,
        "default_model_filename": "model.plan" if tensorrt else "model.onnx",
        "max_batch_size": serving.max_batch,
        "input": [_tensor(name, manifest) for name in stage.inputs],
        "output": [_tensor(name, manifest) for name in stage.outputs],
        # KIND_AUTO: a GPU where there is one. A plan runs on nothing else.
        "instance_group": [{"count": serving.instances, "kind": "KIND_GPU" if tensorrt else "KIND_AUTO"}],
        "dynamic_batching": {"max_queue_delay_microseconds": serving.queue_delay},
        "model_warmup": [_warm_up(stage, manifest, batch) for batch in sorted({1, serving.max_batch})],
    }


def ensemble_config(
    name: str, stages: Sequence[Stage], outputs: Iterable[str], manifest: Manifest, batch: int
) -> Config:
    """Return the configuration of an ensemble of ``stages`` that returns the tensors ``outputs``."""
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": [_tensor(name, manifest) for name in CHAIN_INPUTS],
        "output": [_tensor(name, manifest) for name in outputs],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": model_name(stage),
                    "model_version": -1,
                    "input_map": {name: name for name in stage.inputs},
                    "output_map": {name: name for name in stage.outputs},
                }
                for stage in stages
            ]
        },
    }


def photo_config(manifest: Manifest, serving: Serving) -> Config:
    """Return the configuration of the Python model around the ensemble: one picture of any size a request."""
    return {
        "name": PHOTO,
        "backend": "python",
        "max_batch_size": 0,
        "input": [
            {"name": "picture", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]},
            {"name": "hole", "data_type": "TYPE_BOOL", "dims": [-1, -1]},
        ],
        "output": [{"name": "completed_picture", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}],
        # An instance waits for its face: as many wait side by side as one batch holds.
        "instance_group": [{"count": serving.max_batch, "kind": "KIND_CPU"}],
        "parameters": {"image_size": {"string_value": str(manifest.image_size)}},
    }


def configs(manifest: Manifest, serving: Serving) -> dict[str, Config]:
    """Return the configurations of a repository by the models' names: the stages, and two ensembles.

    There are two because Triton's ensemble has no subset of outputs: one that also returned the tensors in the middle
    would fail for every client that asks for the last alone.
    """
    found = {model_name(stage): stage_config(stage, manifest, serving) for stage in manifest.stages}
    short = _needed(manifest.stages, CHAIN_OUTPUT)
    every = [name for stage in manifest.stages for name in stage.outputs]
    found[ENSEMBLE] = ensemble_config(ENSEMBLE, short, [CHAIN_OUTPUT], manifest, serving.max_batch)
    found[ENSEMBLE_OF_ALL] = ensemble_config(ENSEMBLE_OF_ALL, manifest.stages, every, manifest, serving.max_batch)
    if serving.photo:
        found[PHOTO] = photo_config(manifest, serving)
    return found


def _needed(stages: Sequence[Stage], output: str) -> list[Stage]:
    """Return the stages that ``output`` depends on: an ensemble may not compute what nobody takes."""
    wanted, needed = {output}, list[Stage]()
    for stage in reversed(stages):
        if wanted & set(stage.outputs):
            wanted |= set(stage.inputs)
            needed.insert(0, stage)
    return needed


def _dims(name: str, manifest: Manifest) -> list[int]:
    """Return a tensor's dimensions without the batch, as Triton counts them."""
    return list(TENSORS[name].resolve(1, manifest.image_size, manifest.code_channels)[1:])


def _tensor(name: str, manifest: Manifest) -> Config:
    return {"name": name, "data_type": TYPES[TENSORS[name].dtype], "dims": _dims(name, manifest)}


def _warm_up(stage: Stage, manifest: Manifest, batch: int) -> Config:
    inputs = {
        name: {"data_type": TYPES[TENSORS[name].dtype], "dims": _dims(name, manifest), "zero_data": True}
        for name in stage.inputs
    }
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": inputs}
