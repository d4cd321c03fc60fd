"""The inpainting methods that can be measured: each completes a batch of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from showface.runtime.backends.cuda_devices import parse_device
from showface.runtime.errors import UsageError
from showface.runtime.faces.tensors import FloatArray, composite, prepare
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import COARSE_IMAGE
from showface.training.checkpoint import coarse_from_checkpoint, model_from_checkpoint, read_checkpoint
from showface.training.data.sources import image_files, read_face
from showface.training.networks.mdrnets import MDRNets

from ..faces import BUCKETS, SIZE, Face
from ..metrics import Rgb

Method = Callable[[Sequence[Face]], list[Rgb]]  # one result [256, 256, 3] a face
Completion = Callable[[Tensor, Tensor], Tensor]  # image and mask to the completed image

RADIUS = 5  # pixels, of OpenCV's methods


def _opencv(algorithm: int, faces: Sequence[Face]) -> list[Rgb]:
    return [np.asarray(cv2.inpaint(f.rgb, f.hole.astype(np.uint8), RADIUS, algorithm), np.uint8) for f in faces]


BASELINES: Mapping[str, Method] = {
    "telea": partial(_opencv, cv2.INPAINT_TELEA),  # fast marching (Telea 2004)
    "navier-stokes": partial(_opencv, cv2.INPAINT_NS),  # Bertalmio et al. 2001
}


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The methods to measure, at least one; each is a row of the table.

    Attributes:
        bundle: folder of a bundle.
        checkpoint: file of a model, which runs in PyTorch.
        results: folder of another method's results, ``<bucket>/<stem>.png``.
        baselines: ``telea`` or ``navier-stokes``.
        coarse: measure the coarse face of the bundle or checkpoint as well; of a checkpoint without a refiner,
            that alone.
    """

    bundle: Path | None = None
    checkpoint: Path | None = None
    results: Path | None = None
    baselines: tuple[str, ...] = ()
    coarse: bool = False

    def _check(self) -> None:
        """Refuse no method, one that is unknown, and a coarse face of nothing."""
        unknown = [name for name in self.baselines if name not in BASELINES]
        if unknown:
            raise UsageError(f"{unknown[0]} is unknown; use {' or '.join(BASELINES)}", "baseline")
        if self.bundle is None and self.checkpoint is None:
            if self.coarse:
                raise UsageError("coarse is a stage of a bundle or a checkpoint; give one")
            if self.results is None and not self.baselines:
                raise UsageError("no method given; give a bundle, a checkpoint, results or a baseline")

    def open(self, names: Sequence[str], device: str, threads: int | None) -> dict[str, Method]:
        """Return the methods by what they are called in a table.

        Args:
            names: of the image files to be measured.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            threads: number of CPU threads of a bundle; None takes all.

        Raises:
            UsageError: none is chosen, or one is unknown or cannot be loaded.
        """
        self._check()
        methods: dict[str, Method] = {name: BASELINES[name] for name in self.baselines}
        if self.results is not None:
            methods[f"results {self.results.name}"] = results_method(self.results, names)
        if self.bundle is not None:
            inpainter, name = Inpainter.from_bundle(self.bundle, device, threads), f"bundle {self.bundle.name}"
            if self.coarse:
                methods[f"{name}, coarse"] = coarse_method(inpainter)
            methods[name] = bundle_method(inpainter)
        if self.checkpoint is not None:
            place, name = torch_device(device), f"checkpoint {self.checkpoint.name}"
            held = read_checkpoint(self.checkpoint)
            if self.coarse:
                coarse = coarse_from_checkpoint(self.checkpoint).to(place)
                methods[f"{name}, coarse"] = network_method(coarse, held.config.image_size, place)
            if not self.coarse or "refiner" in held.stages:
                methods[name] = checkpoint_method(self.checkpoint, place)
        return methods


def bundle_method(inpainter: Inpainter) -> Method:
    """Return the chain of a bundle."""
    return lambda faces: inpainter.complete_batch([(face.rgb, face.hole) for face in faces])


def coarse_method(inpainter: Inpainter) -> Method:
    """Return the coarse stage of a bundle alone; the stages behind it are run, too."""

    def run(image: FloatArray, mask: FloatArray) -> FloatArray:
        return inpainter.run_stages({"image": image, "mask": mask})[COARSE_IMAGE]

    return _composed(run, inpainter.image_size)


def _composed(run: Callable[[FloatArray, FloatArray], FloatArray], size: int) -> Method:
    """Return a method that prepares the faces for ``run`` and composes what it returns, as the runtime does it."""

    def complete(faces: Sequence[Face]) -> list[Rgb]:
        images, masks = zip(*(prepare(face.rgb, face.hole, size, face.name) for face in faces), strict=True)
        completed = run(np.stack(images), np.stack(masks))
        return [composite(face.rgb, face.hole, c) for face, c in zip(faces, completed, strict=True)]

    return complete


def checkpoint_method(path: Path, device: torch.device) -> Method:
    """Return the assembled model of a checkpoint; see :func:`model_method`.

    Raises:
        UsageError: it is no checkpoint, or lacks a stage.
    """
    return model_method(model_from_checkpoint(path)[0], device)


def model_method(model: MDRNets, device: torch.device) -> Method:
    """Return ``model``, in PyTorch, as a method."""
    return network_method(model.to(device), model.config.image_size, device)


def network_method(network: Completion, image_size: int, device: torch.device) -> Method:
    """Return a network on ``device``, in PyTorch, prepared, composed and rounded as the runtime does it.

    It maps ``image`` [B, 3, H, W] in [-1, 1] and ``mask`` [B, 1, H, W] to the completed image; H = W = ``image_size``.
    """

    def run(image: FloatArray, mask: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return network(*(torch.from_numpy(array).to(device) for array in (image, mask))).cpu().numpy()

    return _composed(run, image_size)


def results_method(folder: Path, names: Sequence[str]) -> Method:
    """Return the results that another method has written, ``folder/<bucket>/<stem>.png`` or of another image suffix.

    They are taken as they are, resized to 256² by area: the known pixels are not copied in again.

    Args:
        folder: with a folder for each of ``BUCKETS``.
        names: of the image files to be measured; results have their stems.

    Raises:
        UsageError: a result is missing, or a stem stands for two files; the message names it.
    """
    stems = _by_stem([Path(name) for name in names])
    found = {bucket: _by_stem(_results(folder / bucket)) for bucket in BUCKETS}
    missing = [folder / bucket / f"{stem}.png" for bucket in BUCKETS for stem in stems if stem not in found[bucket]]
    if missing:
        raise UsageError(
            f"{missing[0]}: no such result, under this or another image suffix; {len(missing)} of "
            f"{len(BUCKETS) * len(stems)} are missing: write one for each image and bucket ({', '.join(BUCKETS)})"
        )

    return lambda faces: [read_face(found[face.bucket][Path(face.name).stem], SIZE) for face in faces]


def _results(folder: Path) -> list[Path]:
    try:
        return image_files(folder)
    except UsageError:  # the files are then all reported missing
        return []


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in files:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise UsageError(f"{path}: has the same stem as {other.name}; results are found by stem, rename one")
    return stems


def torch_device(device: str) -> torch.device:
    """Return PyTorch's device for ``auto``, ``cpu`` or ``cuda:N``; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: none of the three, or PyTorch finds no such device.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    index = parse_device(device)
    if index is None:
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise UsageError(f"{device}: PyTorch finds {torch.cuda.device_count()} CUDA devices; use cpu", "device")
    return torch.device("cuda", index)
