"""Where a feed's faces come from: memory on one device, or workers that decode them from disk."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from showface.runtime.errors import UsageError

from .labels import read_labels, shows_rare_category
from .sources import FaceFiles, read_face

READ_AHEAD = 64  # faces decoded at a time on their way into memory

FaceTensors = tuple[Tensor, Tensor | None]  # image [B, 3, H, W] and labels [B, H, W], both uint8


class FaceReader(Protocol):
    """Where a feed's faces come from."""

    def read(self, indices: Sequence[int]) -> FaceTensors:
        """Return the faces ``indices``."""

    def stream(self, batches: Iterable[list[int]]) -> Iterator[FaceTensors]:
        """Return the faces of one batch after the other."""


class MemoryFaces:
    """All faces on one device as uint8."""

    def __init__(self, files: FaceFiles, size: int, workers: int, device: torch.device) -> None:
        """Decode ``files`` with ``workers`` threads."""
        count = len(files.images)
        self.image = torch.empty((count, 3, size, size), dtype=torch.uint8, device=device)
        self.labels = None
        self.rare = np.zeros(count, np.bool_)  # faces that show a rare category
        if files.labels is not None:
            self.labels = torch.empty((count, size, size), dtype=torch.uint8, device=device)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for start in range(0, count, READ_AHEAD):
                part = slice(start, min(start + READ_AHEAD, count))
                faces = list(pool.map(lambda p: read_face(p, size), files.images[part]))
                self.image[part] = torch.from_numpy(np.stack(faces)).to(device).permute(0, 3, 1, 2)
                if self.labels is not None and files.labels is not None:
                    maps = list(pool.map(lambda f: read_labels(f, size), files.labels[part]))
                    self.labels[part] = torch.from_numpy(np.stack(maps)).to(device)
                    self.rare[part] = [shows_rare_category(labels) for labels in maps]

    def read(self, indices: Sequence[int]) -> FaceTensors:
        """Return the faces ``indices``, on the device."""
        chosen = torch.tensor(indices, device=self.image.device)
        return self.image[chosen], None if self.labels is None else self.labels[chosen]

    def stream(self, batches: Iterable[list[int]]) -> Iterator[FaceTensors]:
        """Return the faces of one batch after the other."""
        return map(self.read, batches)


class MadeFaces(Dataset["FaceTensors | UsageError"]):
    """Faces that are made as they are needed; a dataset of single ones to torch."""

    workers: int
    pinned: bool

    def face(self, index: int) -> FaceTensors:
        """Make one face.

        Raises:
            UsageError: it cannot be made.
        """
        raise NotImplementedError

    def __getitem__(self, index: int) -> FaceTensors | UsageError:
        """Make one face; an error is returned, because torch would bury its message in a traceback."""
        try:
            return self.face(index)
        except UsageError as error:
            return error

    def read(self, indices: Sequence[int]) -> FaceTensors:
        """Return the faces ``indices``, made here and now."""
        return _checked(_collate([self[i] for i in indices]))

    def stream(self, batches: Iterable[list[int]]) -> Iterator[FaceTensors]:
        """Return the faces of one batch after the other, made ahead by processes that live until the last one."""
        loader: DataLoader[FaceTensors | UsageError] = DataLoader(
            self,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.pinned,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # otherwise it draws from the global one, and a resumed run would differ
        )
        return map(_checked, loader)


@dataclass(frozen=True)
class DiskFaces(MadeFaces):
    """Faces that are decoded from their files."""

    files: FaceFiles
    size: int
    workers: int
    pinned: bool

    def face(self, index: int) -> FaceTensors:
        """Decode one face."""
        image = torch.from_numpy(read_face(self.files.images[index], self.size)).permute(2, 0, 1)
        labels = self.files.labels
        return image, None if labels is None else torch.from_numpy(read_labels(labels[index], self.size))


def _collate(faces: Sequence[FaceTensors | UsageError]) -> FaceTensors | UsageError:
    """Join single faces to a batch; the first error stands for it."""
    images, maps = [], []
    for face in faces:
        if isinstance(face, UsageError):
            return face
        images.append(face[0])
        maps.append(face[1])
    labels = [m for m in maps if m is not None]
    return torch.stack(images).contiguous(), torch.stack(labels) if labels else None


def _checked(faces: FaceTensors | UsageError) -> FaceTensors:
    if isinstance(faces, UsageError):
        raise faces
    return faces


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's thread pool does not survive a fork
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the trainer ends its workers itself
        signal.signal(number, signal.SIG_IGN)
