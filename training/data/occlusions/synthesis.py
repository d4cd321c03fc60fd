"""One synthetic sample: a host, an occlusion or what resembles one, and labels that say which pixels are covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from ...occluder.config import OcclusionConfig, ShareConfig
from ..labels import LabelFile, LabelMap, read_labels
from ..sources import read_face
from . import negatives
from .cutouts import Cutouts
from .fabric import cloth_of
from .kinds import KINDS, Supply
from .layers import FREE, UNCOUNTED, FloatPicture, Scene

SELF_PATCHES = 0.05  # share of the samples that carry a seam without an occlusion
SECOND = 0.06  # share that carries a second kind
CLEAR = 0.65  # share of the skin's brightness from which lenses are clear
SKIN = CATEGORIES.index("skin")
EYEGLASSES, CLOTH = CATEGORIES.index("eyeglasses"), CATEGORIES.index("cloth")


@dataclass(frozen=True, slots=True)
class Host:
    """A face to paste on, and its labels where it has some."""

    image: Path
    labels: LabelFile | None


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Makes samples out of hosts and cut-outs; see :meth:`sample`."""

    hosts: Sequence[Host]
    host_shares: NDArray[np.float64]  # cumulated probability of each host, up to 1
    fabrics: Sequence[Host]  # labelled hosts, whose cloth is used
    cutouts: Cutouts
    config: OcclusionConfig
    size: int

    def sample(self, rng: np.random.Generator, kind: str | None = None) -> tuple[NDArray[np.uint8], LabelMap, str]:
        """Make a sample.

        Args:
            rng: decides it.
            kind: a field of ``ShareConfig``; drawn where it is None.

        Returns:
            The picture [S, S, 3] uint8 RGB, its labels [S, S] (FREE, COVERED or UNCOUNTED), and the kind.

        Raises:
            UsageError: a host cannot be read.
        """
        names, shares = share_table(self.config.shares)
        drawn = names[int(rng.choice(len(names), p=shares))]
        kind = kind or drawn
        host, other = self._drawn_host(rng), self._drawn_host(rng)
        scene = Scene(*self._opened(host, bool(rng.random() < 0.5)))
        supply = Supply(self.cutouts, self._textures(rng, kind), lambda: _picture(read_face(other.image, self.size)))
        if rng.random() < 0.04:  # before something is pasted: a face in make-up or odd light is occluded like others
            negatives.light(rng, scene)
        self._covered(rng, scene, kind, supply)
        if kind in KINDS and rng.random() < SECOND:
            second = str(rng.choice(("hand", "sunglasses", "shape", "light")))
            if second != "hand" or self.cutouts.kinds.get(second):
                self._covered(rng, scene, second, supply)
        if rng.random() < SELF_PATCHES:
            negatives.self_patch(rng, scene)
        return negatives.degraded(rng, negatives.toned(rng, scene.picture)), scene.labels, kind

    def _covered(self, rng: np.random.Generator, scene: Scene, kind: str, supply: Supply) -> None:
        if kind in KINDS:
            KINDS[kind](rng, scene, supply)
        elif kind == "light":
            negatives.light(rng, scene)
        elif kind == "paint":
            negatives.paint(rng, scene)
        elif kind == "other_face":
            negatives.other_face(rng, scene, supply.other())

    def _drawn_host(self, rng: np.random.Generator) -> Host:
        return self.hosts[int(np.searchsorted(self.host_shares, rng.random(), side="right"))]

    def _opened(self, host: Host, mirrored: bool) -> tuple[FloatPicture, NDArray[np.uint8]]:
        """Read a host and what is known of its own occlusions: dark eyeglasses are not counted, clear ones are none."""
        image = read_face(host.image, self.size)
        labels = np.full(image.shape[:2], FREE, np.uint8)
        if host.labels is not None:
            parts = read_labels(host.labels, self.size)
            worn = (parts == EYEGLASSES).astype(np.uint8)
            if worn.any() and not _clear(image, worn > 0, parts == SKIN):
                labels[cv2.dilate(worn, np.ones((5, 5), np.uint8)) > 0] = UNCOUNTED
        if mirrored:
            image, labels = image[:, ::-1], np.ascontiguousarray(labels[:, ::-1])
        return _picture(image), labels

    def _textures(self, rng: np.random.Generator, kind: str) -> list[NDArray[np.uint8]]:
        """Return the textures, and for half of the fabrics only the real cloth of another face."""
        if kind in ("cloth", "mask", "shape") and self.fabrics and rng.random() < 0.5:
            host = self.fabrics[int(rng.integers(len(self.fabrics)))]
            assert host.labels is not None  # chosen for them
            patch = cloth_of(read_face(host.image, self.size), read_labels(host.labels, self.size) == CLOTH)
            if patch is not None:
                return [patch]
        return list(self.cutouts.textures)


def share_table(shares: ShareConfig) -> tuple[list[str], NDArray[np.float64]]:
    """Return the kinds and their probabilities.

    Raises:
        UsageError: a share is negative, or none is positive.
    """
    table = asdict(shares)
    for name, value in table.items():
        if value < 0:
            raise UsageError(f"occlusion.shares.{name} = {value}: a share is not negative")
    total = sum(table.values())
    if not total > 0:
        raise UsageError("occlusion.shares: all are 0; at least one must be positive")
    return list(table), np.asarray(list(table.values())) / total


def _clear(image: NDArray[np.uint8], worn: NDArray[np.bool_], skin: NDArray[np.bool_]) -> bool:
    """Tell whether one sees through eyeglasses: they are about as bright as the skin around."""
    if not skin.any():
        return False
    bright = image.mean(axis=2)
    return bool(np.median(bright[worn]) > CLEAR * np.median(bright[skin]))


def _picture(image: NDArray[np.uint8]) -> FloatPicture:
    return np.asarray(image, np.float32) / np.float32(255)
