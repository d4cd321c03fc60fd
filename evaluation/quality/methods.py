"""The inpainting methods that can be measured: each completes a batch of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from showface.runtime.backends.cuda_devices import parse_device
from showface.runtime.errors import UsageError
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.inpainter import Inpainter
from showface.training.checkpoint import model_from_checkpoint
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
    """One method to measure; exactly one of the four is given.

    Attributes:
        bundle: folder of a bundle.
        checkpoint: file of a model, which runs in PyTorch.
        results: folder of another method's results, ``<bucket>/<stem>.png``.
        baseline: ``telea`` or ``navier-stokes``.
    """

    bundle: Path | None = None
    checkpoint: Path | None = None
    results: Path | None = None
    baseline: str | None = None

    def check(self) -> None:
        """Refuse none, or more than one.

        Raises:
            UsageError: so it is.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        named = [option for option, value in given.items() if value is not None]
        if len(named) != 1:
            raise UsageError(f"{' and '.join(named) or 'no method'} given; give one of {', '.join(given)}")

    def open(self, names: Sequence[str], device: str, threads: int | None) -> tuple[str, Method]:
        """Return what the method is called in a table, and the method.

        Args:
            names: names of the image files to be measured.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            threads: number of CPU threads of a bundle; None takes all.

        Raises:
            UsageError: it cannot be loaded.
        """
        self.check()
        if self.bundle is not None:
            return f"bundle {self.bundle.name}", bundle_method(self.bundle, device, threads)
        if self.checkpoint is not None:
            return f"checkpoint {self.checkpoint.name}", checkpoint_method(self.checkpoint, torch_device(device))
        if self.results is not None:
            return f"results {self.results.name}", results_method(self.results, names)
        assert self.baseline is not None
        return self.baseline, baseline_method(self.baseline)


def baseline_method(name: str) -> Method:
    """Return a classical method by its name.

    Raises:
        UsageError: there is no such method.
    """
    if name not in BASELINES:
        raise UsageError(f"{name} is unknown; use {' or '.join(BASELINES)}", "baseline")
    return BASELINES[name]


def bundle_method(folder: Path, device: str, threads: int | None) -> Method:
    """Return the chain of the bundle in ``folder``.

    Raises:
        UsageError: the bundle is broken, or the device is not to be had.
    """
    inpainter = Inpainter.from_bundle(folder, device, threads)

    def complete(faces: Sequence[Face]) -> list[Rgb]:
        return inpainter.complete_batch([(face.rgb, face.hole) for face in faces])

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
    """Return a network, in PyTorch, prepared, composed and rounded as the runtime does it.

    Args:
        network: maps ``image`` [B, 3, H, W] in [-1, 1] and ``mask`` [B, 1, H, W] to the completed image.
        image_size: H = W.
        device: device that holds the network.
    """

    def complete(faces: Sequence[Face]) -> list[Rgb]:
        prepared = [prepare(face.rgb, face.hole, image_size, face.name) for face in faces]
        image, mask = (torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*prepared, strict=True))
        with torch.inference_mode():
            completed = network(image, mask).cpu().numpy()
        return [composite(face.rgb, face.hole, c) for face, c in zip(faces, completed, strict=True)]

    return complete


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

    def complete(faces: Sequence[Face]) -> list[Rgb]:
        return [read_face(found[face.bucket][Path(face.name).stem], SIZE) for face in faces]

    return complete


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
