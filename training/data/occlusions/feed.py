"""Synthetic samples as the faces of a feed: made when they are first drawn, and kept, or made by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from showface.runtime.errors import UsageError

from ...config import TrainConfig
from ..dataset import Feed, Stream, checked_share, generator
from ..masks import MaskBank
from ..readers import FaceTensors, MadeFaces
from ..sources import FaceFiles, face_probability, open_sources
from .cutouts import read_cutouts
from .synthesis import Host, Synthesis, share_table


@dataclass(frozen=True)
class SynthesisedFaces(MadeFaces):
    """Synthetic samples."""

    synthesis: Synthesis
    stream_of: Stream
    seed: int
    workers: int
    pinned: bool

    def face(self, index: int) -> FaceTensors:
        """Make one sample."""
        image, labels, _ = self.synthesis.sample(generator(self.stream_of, self.seed, index))
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1), torch.from_numpy(labels)


class KeptFaces:
    """Samples that are made once, when they are first drawn, and kept on one device as uint8."""

    def __init__(self, made: SynthesisedFaces, count: int, device: torch.device) -> None:
        size = made.synthesis.size
        self.made = made
        # Memory that is not touched yet takes no room.
        self.image = torch.empty((count, 3, size, size), dtype=torch.uint8, device=device)
        self.labels = torch.empty((count, size, size), dtype=torch.uint8, device=device)
        self.known = np.zeros(count, np.bool_)

    def read(self, indices: Sequence[int]) -> FaceTensors:
        """Return the samples ``indices``, on the device."""
        for index in {i for i in indices if not self.known[i]}:
            image, labels = self.made.read([index])
            assert labels is not None
            self.image[index], self.labels[index] = image[0], labels[0]
            self.known[index] = True
        chosen = torch.tensor(indices, device=self.image.device)
        return self.image[chosen], self.labels[chosen]

    def stream(self, batches: Iterable[list[int]]) -> Iterator[FaceTensors]:
        """Return the samples of one batch after the other."""
        return map(self.read, batches)


def open_synthesis(config: TrainConfig, data: Path, held_out: bool = False) -> Synthesis:
    """Open hosts, cut-outs and textures of a run: those to train on, or those that are held out.

    Raises:
        UsageError: a folder, list or picture is missing or wrong; the message names the file and the key.
    """
    occlusion = config.occlusion
    share_table(occlusion.shares)
    if occlusion.samples < 1:
        raise UsageError(f"occlusion.samples = {occlusion.samples}: at least one is needed")
    if occlusion.holdout_every < 2:
        raise UsageError(f"occlusion.holdout_every = {occlusion.holdout_every}: at least 2 is needed")
    unknown = sorted(set(occlusion.left_out) - set(config.sources))
    if unknown:
        raise UsageError(f"occlusion.left_out: {unknown[0]!r} is none of the sources {', '.join(config.sources)}")
    hosts: list[Host] = []
    counts: dict[str, tuple[float, int]] = {}
    for name, files in open_sources(config, data, False, held_out).items():
        left_out = _read_names(data / occlusion.left_out[name]) if name in occlusion.left_out else frozenset()
        found = _labelled(config, data, name, files, held_out)
        kept = [host for host in found if host.image.stem not in left_out]
        if not kept:
            raise UsageError(f"occlusion.left_out.{name}: leaves no face of the source {name!r}")
        hosts += kept
        counts[name] = (config.sources[name].weight, len(kept))
    shares = np.cumsum(face_probability(counts, np.ones(len(hosts))))
    cutouts = read_cutouts(occlusion, data, held_out)
    for kind in ("hand", "mask", "object", "hat"):
        share = getattr(occlusion.shares, kind)
        if share and not cutouts.kinds.get(kind):
            held = " to hold out" if held_out else ""
            raise UsageError(f"occlusion.shares.{kind} = {share}, but there is no cut-out of this kind{held}")
    fabrics = [host for host in hosts if host.labels is not None]
    return Synthesis(hosts, shares / shares[-1], fabrics, cutouts, occlusion, config.network.image_size)


def _labelled(config: TrainConfig, data: Path, name: str, files: FaceFiles, held_out: bool) -> list[Host]:
    """Return the hosts of a source, with labels where the source has them."""
    source = config.sources[name]
    if source.labels is None and source.layout != "celebahq":
        return [Host(path, None) for path in files.images]
    labelled = open_sources(replace(config, sources={name: source}), data, True, held_out)[name]
    assert labelled.labels is not None
    labels = dict(zip(labelled.images, labelled.labels, strict=True))
    return [Host(path, labels.get(path)) for path in files.images]


def _read_names(path: Path) -> frozenset[str]:
    try:
        return frozenset(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a list of names: {error}; mend occlusion.left_out") from error


def open_occlusion_feed(
    config: TrainConfig, data: Path, device: torch.device, rank: int = 0, world: int = 1, held_out: bool = False
) -> Feed:
    """Open the samples of a run; with ``held_out``, ``validation.faces`` of held-out hosts and cut-outs.

    In memory mode a sample stays on ``device`` once it was made; in disk mode workers make each anew.

    Raises:
        UsageError: as :func:`open_synthesis`, or a batch cannot be divided among the processes.
    """
    for name, phase in config.phases.items():
        checked_share(phase.batch_size, world, f"phases.{name}.batch_size = {phase.batch_size}")
    synthesis = open_synthesis(config, data, held_out)
    count = config.occlusion.samples
    if held_out:
        assert config.validation is not None  # checked by open_sources
        count = config.validation.faces
    stream = Stream.HELD_OUT_OCCLUSION if held_out else Stream.OCCLUSION
    made = SynthesisedFaces(synthesis, stream, config.seed, config.feed.workers, device.type == "cuda")
    keep = held_out or config.feed.mode == "memory"
    faces = KeptFaces(made, count, device) if keep else made
    shares = (np.arange(count) + 1) / count
    bank = MaskBank(np.zeros((1, synthesis.size, synthesis.size), np.uint8), np.ones(1), np.zeros(1, np.bool_))
    photographs = torch.zeros(count, dtype=torch.bool, device=device)  # no camera saw what is pasted together
    empty = torch.from_numpy(bank.masks).to(device)
    return Feed(config, "sample-{}".format, faces, photographs, shares, bank, empty, rank, world)
