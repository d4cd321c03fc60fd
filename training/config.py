"""Configuration of the networks and of training, as frozen dataclasses.

The paper gives the chain, the losses, Adam(0.9, 0.99), 2e-4, batch 8, 256², 14 categories and 128
slots. Widths, patch size, temperature, decay and loss weights are not in it: the defaults here
are this project's choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .occluder.config import OccluderConfig, OcclusionConfig


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """The layout network: the coarse network's kind at a quarter of the resolution; not in the paper."""

    widths: tuple[int, ...] = (48, 96, 192, 256, 256)
    full_width: int = 32


@dataclass(frozen=True, slots=True)
class CoarseConfig:
    """U-Net of partial convolutions; one width per halving of the resolution, one at full size.

    With ``layout`` a small network lays the face out at a quarter of the resolution first. ``scale_limit`` is the
    greatest k²/count of the partial convolutions of the decoder and of the encoder's three deepest levels; 0 for
    none, as in the paper. 2.8 is just above 25/9, the scale of a wholly valid corner window. ``prior`` is a learned
    start where the encoder's last level sees hole alone.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)
    full_width: int = 16
    layout: LayoutConfig | None = None
    scale_limit: float = 2.8
    prior: bool = True


@dataclass(frozen=True, slots=True)
class ParserConfig:
    """BiSeNet; ``width`` is that of the spatial path and of each context feature."""

    width: int = 64


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Style encoder and disentangled memory (paper §3.2).

    ``kind`` chooses the paper's ablation: one block a category, one block for all of them (of the
    same volume), or none. ``similarity`` says what eq. 1 compares: ``centred`` codes, from which the mean of their
    category is taken, or the paper's ``plain`` ones, nearly all of whose energy is that mean. ``temperature``
    divides the cosines before the softmax of eq. 4; the paper has none (1.0). ``decay`` is α of eq. 3.
    """

    kind: Literal["disentangled", "shared", "none"] = "disentangled"
    channels: int = 64
    slots: int = 128
    temperature: float = 0.3
    decay: float = 0.99
    encoder_width: int = 64
    similarity: Literal["centred", "plain"] = "centred"


@dataclass(frozen=True, slots=True)
class MremConfig:
    """Fusion and masked correlation mining (paper §3.3); without mining, fusion alone."""

    mining: bool = True
    patch_size: int = 4


@dataclass(frozen=True, slots=True)
class RefinerConfig:
    """Gated convolutions and SPADE blocks (paper §3.4) at two scales; the paper has one, and gives no widths.

    ``body_widths`` are those at a quarter, an eighth and a sixteenth of the size, ``detail_widths`` those at full
    size, half and a quarter; ``dilations`` one a block at the sixteenth.
    """

    body_widths: tuple[int, ...] = (48, 96, 192)
    detail_widths: tuple[int, ...] = (16, 32, 64)
    dilations: tuple[int, ...] = (1, 2, 1, 2)
    spade_hidden: int = 32


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """All that decides the shapes of MDRNets."""

    image_size: int = 256
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    parser: ParserConfig = field(default_factory=ParserConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    mrem: MremConfig = field(default_factory=MremConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One set of faces.

    ``layout`` says what lies at ``images``: a folder of photographs, the root of CelebAMask-HQ, or
    FFHQ's folder of images. ``labels`` is a folder of label maps of the same stems, for plain
    folders; CelebAMask-HQ brings its own. ``weight`` is the share of the samples (shares are
    normalised). ``photographs`` says whether they show what a camera saw: a discriminator takes no others for real,
    or it would teach the faults of whatever made them.
    """

    images: str
    weight: float = 1.0
    labels: str | None = None
    layout: Literal["folder", "celebahq", "ffhq"] = "folder"
    split: Literal["all", "train", "test"] = "all"
    photographs: bool = True


@dataclass(frozen=True, slots=True)
class MaskShares:
    """How often masks of each kind are taken; shares are normalised, and 0 leaves a kind out.

    ``files`` are those of the folder, or strokes and boxes of 1 to 60 % where there is none. ``strokes`` are strokes
    and boxes of 30 to 95 %; ``borders`` are borders, half planes and all but an island, of 60 to 98 %; ``parts`` are
    whole facial parts, where ``part_labels`` shows them.
    """

    files: float = 1.0
    strokes: float = 0.0
    borders: float = 0.0
    parts: float = 0.0


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """Masks: a folder of ratio bins (``20-30`` …), and masks drawn by the seed.

    ``hole`` is the colour of the hole in the files. ``drawn`` masks are made of each kind that is drawn.
    ``part_labels`` is a folder of label maps of aligned faces, whose regions are the holes of the kind ``parts``:
    on aligned faces the parts of one lie where those of another do.
    """

    folder: str | None = None
    hole: Literal["white", "black"] = "white"
    drawn: int = 6000
    part_labels: str | None = None
    shares: MaskShares = field(default_factory=MaskShares)


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """How samples reach the device: all of them held there as uint8, or decoded by workers."""

    mode: Literal["memory", "disk"] = "memory"
    workers: int = 2


@dataclass(frozen=True, slots=True)
class PhaseConfig:
    """A stretch of training at one resolution: ``crop`` cuts a square out of the ``resize``d face.

    ``batch_size`` counts the faces of a step on all processes together.
    """

    steps: int
    batch_size: int = 8
    resize: int = 256
    crop: int | None = None


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Random augmentation; angles in degrees, the others relative. Flips are always on."""

    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    color: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Adam as in the paper (0.9, 0.99; 2e-4), with warm-up, cosine decay, clipping and EMA.

    ``cosine`` lets the rate fall to zero; ``cosine_from`` is the share of the steps before it begins to.
    """

    learning_rate: float = 2e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    warmup_steps: int = 0
    cosine: bool = True
    cosine_from: float = 0.0
    clip_norm: float | None = None
    ema_decay: float = 0.999


@dataclass(frozen=True, slots=True)
class PerceptualConfig:
    """The network of the perceptual and style losses; the file is relative to the data folder.

    ``blocks`` are those whose last activation is compared (from 1); with ``relative`` each is divided by its own
    mean. The paper compares all four, as they are.
    """

    network: Literal["vgg19", "vgg16-caffe"] = "vgg19"
    weights: str | None = None
    blocks: tuple[int, ...] = (1, 2, 3, 4)
    relative: bool = False


@dataclass(frozen=True, slots=True)
class AdversarialConfig:
    """The discriminator; ``loss`` is eq. 13 or its hinge variant.

    ``patch`` is the paper's PatchGAN over the whole face. ``vgg-heads`` are small heads on the ``blocks`` of the
    frozen network of the perceptual loss, which see the mask and take patches without a hole for real (after Sauer et
    al. 2021, Projected GAN). With ``adaptive`` > 0 the term's weight is such that its gradient at the last layer is
    that multiple of the other terms'. It has no weight before ``start``, and grows to its own within ``ramp`` steps.
    """

    network: Literal["patch", "vgg-heads"] = "patch"
    loss: Literal["paper", "hinge"] = "paper"
    width: int = 64
    learning_rate: float = 2e-4
    betas: tuple[float, ...] | None = None
    blocks: tuple[int, ...] = (2, 3, 4)
    adaptive: float = 0.0
    start: int = 0
    ramp: int = 0


@dataclass(frozen=True, slots=True)
class ReconstructionConfig:
    """The encoder-decoder behind the InCo² loss (paper Fig. 4)."""

    width: int = 32
    channels: int = 128


@dataclass(frozen=True, slots=True)
class ValidationConfig:
    """Faces kept out of training that decide which checkpoint is the best.

    Of every source each ``holdout_every``-th face is kept, and of these at most ``faces`` are looked
    at, every ``every`` steps, behind masks whose hole ratio lies in ``hole_ratio``. The best is that of the least
    ``measure``: the loss without its adversarial term, which for a refinement is often the blurriest one, or the
    Fréchet distance of the completed faces from the photographs in the features of the perceptual network.
    """

    holdout_every: int
    faces: int = 64
    every: int = 500
    hole_ratio: tuple[float, ...] = (0.0, 1.0)
    measure: Literal["loss", "frechet"] = "loss"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run of one training stage.

    Paths are relative to the data folder; those of ``init`` and ``coordination`` to the output folder: checkpoints that
    the run starts from or keeps frozen, and the reconstruction network of the InCo² loss. ``loss`` gives the weights λ
    of the stage's terms; a term with weight zero is not computed; with ``per_hole`` the terms of pixels and features
    are means over the hole rather than over the face. ``coarse_faces`` is the share of the parser's samples that a
    coarse network from ``init`` completes first: it is such faces that the chain parses.

    The stage ``mdrnet`` trains at a ``scale``: the ``small`` refinement body with memory and MREM at a quarter of the
    size, the ``detail`` path on crops over a frozen body, or all of it on ``whole`` faces. For the first
    ``oracle_steps`` the memory answers with the true codes of the whole face, and the style encoder learns; then the
    memory is filled from ``memory_faces`` faces and the encoder stays as it is (after Zhou et al. 2022, CodeFormer).
    With ``encoder = "learns"`` it learns all along, as the paper has it. ``samples`` is the folder of a run of the
    stage ``samples``, whose coarse faces and category maps are taken instead of being computed anew.
    """

    sources: dict[str, SourceConfig]
    phases: dict[str, PhaseConfig]
    masks: MaskConfig = field(default_factory=MaskConfig)
    feed: FeedConfig = field(default_factory=FeedConfig)
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    backbone: str | None = None
    init: tuple[str, ...] = ()
    coordination: str | None = None
    checkpoint_every: int = 100
    keep_every: int | None = None
    scale: Literal["whole", "small", "detail"] = "whole"
    encoder: Literal["frozen", "learns"] = "frozen"
    oracle_steps: int = 0
    memory_faces: int = 2048
    samples: str | None = None
    per_hole: bool = False
    gradients_every: int = 0
    coarse_faces: float = 0.0
    log_every: int = 10
    grid_every: int = 500
    loss: dict[str, float] = field(default_factory=dict)
    validation: ValidationConfig | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    occluder: OccluderConfig = field(default_factory=OccluderConfig)
    occlusion: OcclusionConfig = field(default_factory=OcclusionConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases.values())

    def phase_at(self, step: int) -> PhaseConfig:
        """Return the phase that ``step`` (from 0) falls into."""
        left = step
        for phase in self.phases.values():
            if left < phase.steps:
                return phase
            left -= phase.steps
        raise ValueError(f"step {step} lies beyond the last phase")
