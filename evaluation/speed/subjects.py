"""What is timed: something that completes faces, and whose stages can run alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from showface.runtime.backends.chain import Chain, Tensors
from showface.runtime.bundle import Bundle
from showface.runtime.stages import Stage

Array = NDArray[Any]


class Subject(Protocol):
    """One side of a benchmark."""

    @property
    def name(self) -> str:
        """Short, unique in a run."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def on_device(self) -> bool:
        """Whether its production path keeps what passes between the stages on a device."""

    def complete(self, image: Array, mask: Array) -> Array:
        """Run the production path: image [B, 3, H, W] and mask [B, 1, H, W] to the completed image."""

    def stage(self, stage: Stage, inputs: Tensors) -> dict[str, Array]:
        """Run one stage alone and return its outputs, brought to the host."""


@dataclass(frozen=True, slots=True)
class ChainSubject:
    """A bundle on a backend."""

    name: str
    bundle: Bundle
    chain: Chain

    @property
    def description(self) -> str:
        """The bundle's folder, its precisions and the backend."""
        precision = "/".join(sorted(set(self.bundle.manifest.precision.values())))
        return f"{self.bundle.folder.name} ({precision}), {self.chain.description}"

    def complete(self, image: Array, mask: Array) -> Array:
        """See :class:`Subject`."""
        return self.chain.complete(image, mask)

    @property
    def on_device(self) -> bool:
        """See :class:`Subject`."""
        return self.chain.device != "cpu"

    def stage(self, stage: Stage, inputs: Tensors) -> dict[str, Array]:
        """See :class:`Subject`."""
        session = self.chain.session(stage.name)
        assert session is not None  # of the bundle that the chain was opened from
        return session.run({name: inputs[name] for name in stage.inputs})
