"""Write the model repository of a bundle, every text checked against Triton's ``ModelConfig``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from showface.runtime.backends.tensorrt.sidecar import EngineFolder, engine_folders, read_engine, read_sidecar
from showface.runtime.bundle import Bundle, check_new
from showface.runtime.device_kit import TERMS
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.stages import Stage

from .config import PHOTO, Config, Serving, configs, model_name

BACKENDS = ("onnxruntime", "tensorrt")
CONFIG_FILE = "config.pbtxt"


def write_repository(
    bundle: Bundle,
    output: Path,
    serving: Serving,
    container_tensorrt: str | None = None,
    targets: Sequence[str] = (),
) -> tuple[str, ...]:
    """Write a model repository; return the names of its models.

    Args:
        bundle: with the graphs, or for ``tensorrt`` with engines.
        output: folder to create; it must not exist.
        serving: how the models are run.
        container_tensorrt: version of TensorRT in Triton's container, for ``tensorrt``.
        targets: of the engines: none, or the one to take where the bundle has several.

    Raises:
        UsageError: the backend is none of Triton's, the engines are not of the container's version or for smaller
            batches, a file is missing or broken, or ``output`` exists or cannot be written.
    """
    check_new(output)
    found = _configs(bundle, serving)
    entries = {f"{name}/{CONFIG_FILE}": text_of(config).encode() for name, config in found.items()}
    if serving.backend == "tensorrt":
        entries |= _engines(bundle, serving, container_tensorrt, targets)
    else:
        entries |= _graphs(bundle)
    if serving.photo:
        entries[f"{PHOTO}/1/model.py"] = files(__package__).joinpath("photo_model.py").read_bytes()
    # The terms of the weights travel with them, beside the models: Triton takes every folder for a model.
    entries |= {name: path.read_bytes() for name in TERMS if (path := bundle.folder / name).is_file()}
    with system_errors(UsageError, output, "cannot be written"), atomic_folder(output) as folder:
        for name in found:
            (folder / name / "1").mkdir(parents=True)  # an ensemble has a version too, and it is empty
        for name, data in entries.items():
            (folder / name).write_bytes(data)
    return tuple(found)


def text_of(config: Config) -> str:
    """Return the text of ``config.pbtxt``.

    Raises:
        ValueError: Triton's ``ModelConfig`` has no such field or value.
    """
    try:
        message = json_format.ParseDict(config, ModelConfig())
    except json_format.ParseError as error:
        raise ValueError(f"the configuration of {config.get('name')} is none of Triton's: {error}") from error
    text: str = text_format.MessageToString(message)
    if text_format.Parse(text, ModelConfig()) != message:
        raise ValueError(f"the configuration of {config['name']} does not survive its text")
    return text


def _configs(bundle: Bundle, serving: Serving) -> dict[str, Config]:
    if serving.backend not in BACKENDS:
        text = "choose onnxruntime, or tensorrt with engines that were built for it"
        if serving.backend == "tensorrt-rtx":
            fact = "Triton has no backend for engines of TensorRT-RTX, only for plans of TensorRT"
        else:
            fact = f"{serving.backend}: is no backend of Triton's that showface writes for"
        raise UsageError(f"{fact}; {text}", "backend")
    return configs(bundle.manifest, serving)


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    return {f"{model_name(stage)}/1/model.onnx": bundle.model(stage) for stage in bundle.manifest.stages}


def _engines(bundle: Bundle, serving: Serving, container: str | None, targets: Sequence[str]) -> dict[str, bytes]:
    """Return the plans, checked against what the container can run."""
    folder = _engine_folder(bundle, targets)
    if container is None:
        raise UsageError(
            "a plan runs only in the version of TensorRT that built it; give the one in Triton's container "
            "(its release notes name it), such as 10.13.3.9",
            "container-tensorrt",
        )
    return {
        f"{model_name(stage)}/1/model.plan": _engine(folder, stage, serving.max_batch, container)
        for stage in bundle.manifest.stages
    }


def _engine_folder(bundle: Bundle, targets: Sequence[str]) -> EngineFolder:
    found = [folder for folder in engine_folders(bundle, "tensorrt") if not targets or folder.target in targets]
    if not found:
        wanted = f" for {', '.join(targets)}" if targets else ""
        raise UsageError(f"{bundle.folder}: no engines of tensorrt{wanted}; build them, or use onnxruntime", "backend")
    if len(found) > 1:
        names = ", ".join(folder.target for folder in found)
        raise UsageError(f"{bundle.folder}: has engines of tensorrt for {names}; choose one of these", "target")
    return found[0]


def _engine(folder: EngineFolder, stage: Stage, max_batch: int, container: str) -> bytes:
    sidecar, path = read_sidecar(folder, stage.name), folder.engine(stage.name)
    if sidecar.tensorrt_version != container:
        raise UsageError(
            f"{path}: built by TensorRT {sidecar.tensorrt_version}, the container has {container}; "
            "build the engines in that container"
        )
    least, _, greatest = sidecar.batches
    if least > 1 or greatest < max_batch:
        taken = f"takes batches of {least} to {greatest}, Triton would send 1 to {max_batch}"
        raise UsageError(f"{path}: {taken}; build it for these, or lower the greatest batch")
    if sidecar.profiles > 1:
        raise UsageError(f"{path}: has {sidecar.profiles} profiles, Triton would use the first; build it with one")
    if sidecar.onnx_sha256 != folder.bundle.manifest.sha256[f"{stage.name}.onnx"]:
        raise UsageError(f"{path}: its graph has changed since the build; {folder.rebuild}")
    return read_engine(folder, sidecar)
