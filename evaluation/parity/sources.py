"""Where tensors come from: a chain that can run, or outputs that were kept."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from showface.runtime.backends.chain import Chain, Tensors
from showface.runtime.backends.int8 import cpu_name
from showface.runtime.bundle import Bundle
from showface.runtime.errors import UsageError
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, OCCLUDER, SEMANTIC_MARGIN, Stage
from showface.runtime.version import __version__

from .cases import Case


@dataclass(frozen=True, slots=True)
class Identity:
    """What a source is.

    Attributes:
        description: one line for people.
        variant: key of ``VARIANTS``.
        image_size: side of the networks' input.
        weights: digest of the checkpoint; empty where it is not known.
        precision: compute precision of each stage's arithmetic.
        environment: versions and devices.
    """

    description: str
    variant: str
    image_size: int
    weights: str
    precision: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """One side of a comparison."""

    @property
    def identity(self) -> Identity:
        """What it is."""

    @property
    def runs(self) -> bool:
        """Whether it computes; kept outputs do not."""

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """Return every tensor of the chain, its inputs included; ``given`` replaces what the chain computes.

        ``semantic_margin`` is there too where it is known, and ``occlusion`` where there is an occluder.
        """

    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """Run one stage alone."""


@dataclass(frozen=True, slots=True)
class ChainSource:
    """A bundle on a backend."""

    loaded: Chain
    identity: Identity
    runs = True

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """See :class:`Source`."""
        replaced = {**case.given, **(given or {})}
        tensors = self.loaded.run(case.inputs, replaced)
        if self.loaded.overlaps and not replaced:  # such a chain completes faces by another way than stage by stage
            tensors[CHAIN_OUTPUT] = self.loaded.complete(*(case.inputs[name] for name in CHAIN_INPUTS))
        if self.loaded.occluder is not None:
            tensors.update(self.loaded.occluder.run({name: tensors[name] for name in OCCLUDER.inputs}))
        return tensors

    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """See :class:`Source`."""
        session = self.loaded.session(stage.name)
        if session is None:
            raise UsageError(f"{self.identity.description}: has no stage {stage.name}")
        return session.run({name: inputs[name] for name in stage.inputs})


@dataclass(frozen=True, slots=True)
class Kept:
    """What sources share that do not run."""

    identity: Identity
    runs = False

    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """Refuse: who compares asks first whether a source runs."""
        raise UsageError(f"{self.identity.description}: kept outputs cannot run stage {stage.name}")


@dataclass(frozen=True, slots=True)
class KeptSource(Kept):
    """Tensors in memory, such as a bundle's golden file."""

    tensors: Mapping[str, Tensors]  # by case name

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """See :class:`Source`; ``given`` cannot be honoured.

        Raises:
            UsageError: there are no tensors for the case.
        """
        if case.name not in self.tensors or given:
            raise UsageError(f"{self.identity.description}: holds nothing for {case.name}; give it a source that runs")
        return self.tensors[case.name]


def environment_of(backend: str) -> dict[str, str]:
    """Return the machine and the versions of this process."""
    return {
        "backend": backend,
        "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}",
        "python": platform.python_version(),
        "showface": __version__,
    }


def source_of_bundle(bundle: Bundle, chain: Chain) -> ChainSource:
    """Make a source of a bundle that was loaded on a backend."""
    manifest = bundle.manifest
    return ChainSource(
        chain,
        Identity(
            f"{bundle.folder} on {chain.description}",
            manifest.variant,
            manifest.image_size,
            manifest.checkpoint_sha256,
            {**manifest.precision, **chain.arithmetic},
            environment_of(chain.description),
        ),
    )


def golden_source(bundle: Bundle) -> tuple[KeptSource, Case]:
    """Return the bundle's golden tensors, with which a device proves itself without torch, and their case."""
    manifest, golden = bundle.manifest, bundle.golden()
    outputs = (name for stage in manifest.graphs for name in stage.outputs)
    tensors = {name: golden[name] for name in (*CHAIN_INPUTS, *outputs, SEMANTIC_MARGIN)}
    case = Case("golden", {name: tensors[name] for name in CHAIN_INPUTS})
    versions = {f"{name} (export)": version for name, version in manifest.versions.items()}
    identity = Identity(
        f"PyTorch's outputs in {bundle.folder / 'golden.npz'}",
        manifest.variant,
        manifest.image_size,
        manifest.checkpoint_sha256,
        {stage.name: "float32" for stage in manifest.graphs},
        versions,
    )
    return KeptSource(identity, {case.name: tensors}), case


def check_pair(reference: Identity, candidate: Identity) -> None:
    """Refuse two sources that cannot be compared.

    Raises:
        UsageError: their stages, image sides or weights differ.
    """
    pair = f"{candidate.description} and {reference.description}"
    if reference.variant != candidate.variant:
        raise UsageError(f"{pair}: variants {candidate.variant!r} and {reference.variant!r} have different stages")
    if reference.image_size != candidate.image_size:
        raise UsageError(f"{pair}: image sides {candidate.image_size} and {reference.image_size} differ")
    if reference.weights and candidate.weights and reference.weights != candidate.weights:
        raise UsageError(f"{pair}: were made from other weights; export the bundle again from that checkpoint")
