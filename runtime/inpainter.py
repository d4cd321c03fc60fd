"""Complete faces held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .backends import open_chain
from .bundle import open_bundle
from .faces import composite, prepare
from .images import Pixels
from .masks import Hole
from .session import Chain


class Inpainter:
    """The chain of one bundle with its pre- and post-processing."""

    def __init__(self, chain: Chain, image_size: int, bundle_digest: str) -> None:
        self.chain, self.image_size, self.bundle_digest = chain, image_size, bundle_digest

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
        prepared = [prepare(pixels, hole, self.image_size, f"face {i}") for i, (pixels, hole) in enumerate(faces)]
        image = np.stack([image for image, _ in prepared])
        mask = np.stack([mask for _, mask in prepared])
        completed = self.chain.complete(image, mask)
        return [composite(*face, result, opaque) for face, result in zip(faces, completed, strict=True)]
