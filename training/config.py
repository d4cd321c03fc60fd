"""Configuration of the networks and of training, as frozen dataclasses read from TOML.

The paper gives the chain, the losses, Adam(0.9, 0.99), 2e-4, batch 8, 256², 14 categories and 128
slots. Widths, patch size, temperature, decay and loss weights are not in it: the defaults here
are this project's choice.
"""

from __future__ import annotations

import tomllib
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from showface.runtime.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CoarseConfig:
    """U-Net of partial convolutions; one width per halving of the resolution, one at full size."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)
    full_width: int = 16


@dataclass(frozen=True, slots=True)
class ParserConfig:
    """BiSeNet; ``width`` is that of the spatial path and of each context feature."""

    width: int = 64


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Style encoder and disentangled memory (paper §3.2).

    ``kind`` chooses the paper's ablation: one block a category, one block for all of them (of the
    same volume), or none. ``temperature`` divides the cosines before the softmax of eq. 4; the
    paper has none (1.0). ``decay`` is α of eq. 3.
    """

    kind: Literal["disentangled", "shared", "none"] = "disentangled"
    channels: int = 64
    slots: int = 128
    temperature: float = 1.0
    decay: float = 0.99
    encoder_width: int = 32


@dataclass(frozen=True, slots=True)
class MremConfig:
    """Fusion and masked correlation mining (paper §3.3); without mining, fusion alone."""

    mining: bool = True
    patch_size: int = 4


@dataclass(frozen=True, slots=True)
class RefinerConfig:
    """Gated encoder and SPADE decoder (paper §3.4); ``width`` is that at full resolution."""

    width: int = 32
    dilations: tuple[int, ...] = (2, 4)
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


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against the type ``hint`` of the field ``where`` and convert it."""
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {value!r}")
        return config_from_dict(typing.cast(Any, hint), value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise UsageError(f"{where}: {value!r} is none of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: expected a list, got {value!r}")
        element = typing.get_args(hint)[0]
        return tuple(_convert(element, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {value!r}")
        return {k: _convert(typing.get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _convert(typing.get_args(hint)[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def config_from_dict(cls: type[T], data: dict[str, Any], where: str = "config") -> T:
    """Build the config dataclass ``cls`` from plain values.

    Raises:
        UsageError: a key is unknown or missing or a value has the wrong type; the message names it.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in fields(typing.cast(Any, cls))}
    unknown = sorted(set(data) - names)
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(names))}")
    for f in fields(typing.cast(Any, cls)):
        if f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: missing key {f.name!r}")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()})


def config_from_toml(cls: type[T], path: Path) -> T:
    """Read the config dataclass ``cls`` from a TOML file; errors name the file and the key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    return config_from_dict(cls, data, str(path))


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One folder of faces.

    ``weight`` is its share of the samples (shares are normalised); ``labels`` a folder of
    CelebAMask-HQ label maps of the same stems, needed by the parser.
    """

    images: str
    weight: float = 1.0
    labels: str | None = None


@dataclass(frozen=True, slots=True)
class PhaseConfig:
    """A stretch of training at one resolution: ``crop`` cuts a square out of the ``resize``d face."""

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
    """Adam as in the paper (0.9, 0.99; 2e-4), with warm-up, cosine decay, clipping and EMA."""

    learning_rate: float = 2e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    warmup_steps: int = 0
    cosine: bool = True
    clip_norm: float | None = None
    ema_decay: float = 0.999


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run of one training stage.

    Paths are relative to the data folder (``--data``), those of ``init`` to the output folder
    (``--output``): checkpoints whose networks the run starts from or keeps frozen.
    """

    sources: dict[str, SourceConfig]
    phases: dict[str, PhaseConfig]
    masks: str = "masks/train"
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    backbone: str | None = None
    init: tuple[str, ...] = ()
    holdout_every: int | None = None
    checkpoint_every: int = 100
    log_every: int = 10
    loss: dict[str, float] = field(default_factory=dict)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
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
