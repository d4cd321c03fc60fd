"""Complete faces held in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import open_chain
from .backends.chain import Chain, Tensors
from .bundle import open_bundle
from .errors import UsageError
from .faces.masks import Hole
from .faces.tensors import Array, composite, prepare
from .images.codec import Pixels


class Inpainter:
    """The chain of one bundle with its pre- and post-processing.

    All methods may be called from several threads: the networks run for one caller at a time, all else side by side.
    """

    def __init__(self, chain: Chain, image_size: int, bundle_digest: str) -> None:
        self.chain, self.image_size, self.bundle_digest = chain, image_size, bundle_digest
        self._networks = threading.Lock()  # a backend's device buffers serve one run at a time

    @classmethod
    def from_bundle(
        cls,
        folder: str | Path | None = None,
        device: str = "auto",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Inpainter:
        """Load a bundle, by default the one that ships with the package.

        Raises:
            UsageError: the bundle is broken, or the device is not to be had.
        """
        bundle = open_bundle(folder)
        return cls(open_chain(bundle, backend, device, threads), bundle.manifest.image_size, bundle.digest)

    @property
    def default_batch_size(self) -> int:
        """Faces a batch that suit the device: on a CPU more than one only costs memory, half a gigabyte each."""
        return 1 if self.chain.device == "cpu" else 8

    def complete(self, pixels: Pixels, hole: Hole, opaque: bool = False) -> Pixels:
        """Complete one aligned face; see :meth:`complete_batch`."""
        return self.complete_batch([(pixels, hole)], opaque)[0]

    def complete_batch(self, faces: Sequence[tuple[Pixels, Hole]], opaque: bool = False) -> list[Pixels]:
        """Complete aligned square faces in one batch.

        Args:
            faces: pixels (H, H), (H, H, 3) RGB or (H, H, 4) RGBA, uint8 or uint16, and the hole
                (H, H), True = to be completed. Sizes may differ.
            opaque: set the alpha channel to its maximum in the hole.

        Returns:
            Arrays of the inputs' shapes and dtypes, equal to them bit by bit outside the hole.

        Raises:
            InputError: a face is not square, or its hole is not bool of the same height and width.
        """
        if not faces:
            return []
        prepared = [prepare(pixels, hole, self.image_size, f"face {i}") for i, (pixels, hole) in enumerate(faces)]
        image = np.stack([image for image, _ in prepared])
        mask = np.stack([mask for _, mask in prepared])
        completed = self.run_networks(image, mask)
        return [composite(*face, result, opaque) for face, result in zip(faces, completed, strict=True)]

    def run_networks(self, image: Array, mask: Array) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, size, size] of prepared faces.

        Args:
            image: [B, 3, size, size] in [-1, 1].
            mask: [B, 1, size, size], 1 = hole.
        """
        with self._networks:
            return self.chain.complete(image, mask)

    def run_stages(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Return every tensor of the chain, inputs included.

        Args:
            tensors: ``image`` [B, 3, size, size] in [-1, 1] and ``mask`` [B, 1, size, size], 1 = hole.
        """
        with self._networks:
            return self.chain.run(tensors)

    def parse(self, image: Array) -> NDArray[Any]:
        """Return the parser's ``semantic_map`` [B, size, size] of prepared faces without holes.

        Raises:
            UsageError: the bundle's chain gives no access to its parser.
        """
        for session in self.chain.sessions:
            if session.stage.name == "parser":
                with self._networks:
                    return session.run({"coarse_image": image})["semantic_map"]
        raise UsageError("--mask-from class needs a bundle whose parser is a stage of its own; use the default bundle")
