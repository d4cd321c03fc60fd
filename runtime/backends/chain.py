"""What a backend has to provide: sessions that run one stage each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..stages import CHAIN_INPUTS, CHAIN_OUTPUT, Stage

Device = Literal["cpu", "cuda"]
Tensors = Mapping[str, NDArray[Any]]
Faces = Sequence[NDArray[Any]] | NDArray[Any]  # of each face [C, H, W]; an array [B, C, H, W] serves


class Session(Protocol):
    """One loaded stage."""

    stage: Stage

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Map the stage's inputs to its outputs, by the names of the stage table."""


class Ticket(Protocol):
    """Faces that a chain has been given."""

    def result(self) -> NDArray[Any]:
        """Wait for the faces and return ``completed_image`` [B, 3, H, W]; raises what went wrong with them."""


@dataclass(frozen=True, slots=True)
class Done:
    """A ticket of faces that were completed at once."""

    completed: NDArray[Any]

    def result(self) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, H, W]."""
        return self.completed


class Chain:
    """The stages of a bundle, run one after the other: a fold over the stage table.

    Args:
        sessions: one for each stage, in order.
        description: what runs, where, and why, for people.
        device: ``cpu`` or ``cuda``.
        occluder: finds what covers a face; None where the bundle has none.

    Attributes:
        overlaps: whether :meth:`submit` returns while the device works, so that the host can prepare the next faces.
        backend: that runs it, a value of :class:`~..backends.Backend`.
    """

    overlaps = False
    backend = "onnxruntime"

    def __init__(
        self, sessions: Sequence[Session], description: str, device: Device = "cpu", occluder: Session | None = None
    ) -> None:
        self.sessions, self.description, self.device = sessions, description, device
        # A list, which a chain on a device empties when it is closed: what closes it may not refer to the chain.
        self._occluder = [] if occluder is None else [occluder]

    @property
    def occluder(self) -> Session | None:
        """What finds what covers a face; None where the bundle has none."""
        return self._occluder[0] if self._occluder else None

    def session(self, name: str) -> Session | None:
        """Return the session of a stage of the chain, or of the occluder; None where there is none."""
        return next((session for session in (*self.sessions, *self._occluder) if session.stage.name == name), None)

    @property
    def arithmetic(self) -> Mapping[str, str]:
        """The precision of the stages that round otherwise than the bundle's manifest promises."""
        return {}

    def run(self, inputs: Tensors, given: Tensors | None = None) -> dict[str, NDArray[Any]]:
        """Return every tensor of the chain, inputs included.

        Args:
            inputs: ``image`` [B, 3, H, W] and ``mask`` [B, 1, H, W].
            given: tensors that replace the chain's own as soon as these are computed.
        """
        tensors = dict(inputs)
        for session in self.sessions:
            outputs = session.run({name: tensors[name] for name in session.stage.inputs})
            tensors.update({name: (given or {}).get(name, value) for name, value in outputs.items()})
        return tensors

    def complete(self, image: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, H, W] alone; a backend may keep all else on its device.

        Args:
            image: [B, 3, H, W] float32 in [-1, 1], B ≥ 1.
            mask: [B, 1, H, W] float32, 1 = hole.
        """
        return self.submit(image, mask).result()

    def submit(self, images: Faces, masks: Faces) -> Ticket:
        """Give faces to the device, of whose result :meth:`Ticket.result` is asked later, in the same order.

        Args:
            images: of each face [3, H, W] float32 in [-1, 1]; an array [B, 3, H, W] serves.
            masks: of each face [1, H, W] float32, 1 = hole.
        """
        return Done(self.run(dict(zip(CHAIN_INPUTS, map(np.asarray, (images, masks)), strict=True)))[CHAIN_OUTPUT])

    def close(self) -> None:
        """Give back what the backend holds; ONNX Runtime's sessions free themselves."""
