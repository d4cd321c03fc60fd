"""Configuration of the occluder: its network, and the occlusions that it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class OccluderConfig:
    """The occluder network.

    Attributes:
        width: channels of the features at stride 16.
        side: the resolution that it works at; a deployed one shrinks the face to it first. It must be trained at this
            size: one that was trained at 160 and looked at faces of 256 saw something on a quarter of clean ones.
    """

    width: int = 64
    side: int = 160


@dataclass(frozen=True, slots=True)
class CutoutConfig:
    """A folder of cut-outs: pictures with an alpha channel, one thing each.

    ``kind`` decides where they are pasted: hands enter from outside, masks lie over mouth and nose, sunglasses over
    the eyes, objects anywhere, hats above the brows, where they are no occlusion. ``points`` tells where a hand's
    fingers point in the pictures. ``only`` and ``without`` choose files by the beginning of their names.
    """

    folder: str
    kind: Literal["hand", "mask", "sunglasses", "object", "hat"]
    weight: float = 1.0
    points: Literal["up", "down", "any"] = "any"
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShareConfig:
    """How often each kind of occlusion is drawn, relative to each other; ``nothing`` and the rest are negatives.

    ``cloth`` is fabric over the lower face, ``shape`` a textured patch, a sticker or a block of text, ``microphone``
    is drawn. ``light`` is a shadow, stripes or coloured light, ``paint`` make-up, a tattoo or a mark, ``other_face`` a
    part of another person's face (mostly a beard, or lips), ``eyeglasses`` a frame around clear lenses, ``hat`` a
    cut-out above the brows (0 by default: it needs cut-outs), ``outside`` a cut-out that does not touch the head.
    """

    hand: float = 0.30
    mask: float = 0.13
    sunglasses: float = 0.11
    object: float = 0.07
    microphone: float = 0.06
    cloth: float = 0.09
    shape: float = 0.06
    nothing: float = 0.07
    light: float = 0.06
    paint: float = 0.04
    other_face: float = 0.03
    eyeglasses: float = 0.04
    hat: float = 0.0
    outside: float = 0.02


@dataclass(frozen=True, slots=True)
class OcclusionConfig:
    """What synthetic occlusions are made of.

    Paths are relative to the data folder. ``textures`` is a folder of pictures to fill masks, cloth and shapes with;
    the cloth of labelled hosts is used besides. ``left_out`` names, for a source, a text file of the names (without
    suffix) of its faces that are occluded already. ``samples`` different pictures are made; in memory mode each is
    made once, when it is first drawn. One in ``holdout_every`` cut-outs is kept for validation.
    """

    cutouts: dict[str, CutoutConfig] = field(default_factory=dict)
    textures: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    samples: int = 12_000
    holdout_every: int = 10
    shares: ShareConfig = field(default_factory=ShareConfig)
