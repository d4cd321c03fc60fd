"""Complete faces held in memory; any number of them, so that one face, or too large a batch, does not end the run."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Backend, open_chain
from .backends.chain import Chain, Tensors, Ticket
from .backends.int8 import faster_int8
from .bundle import open_bundle
from .errors import DeviceLostError, InputError, ShowfaceError, UsageError
from .faces.mask_picture import Hole
from .faces.tensors import FloatArray, composite, prepare
from .images.codec import Pixels
from .stages import CATEGORIES, COARSE_IMAGE, LABELS, OCCLUDER

logger = logging.getLogger(__name__)

# What ONNX Runtime, CUDA, TensorRT and the C++ library say when there is no memory left.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|failed to allocate memory|bad_alloc|cudaErrorMemoryAllocation|OutOfMemory", re.I
)
NOT_FINITE = "the networks returned values that are not finite"
Completed = NDArray[Any] | InputError
Prepared = tuple[FloatArray, FloatArray]  # image [3, size, size] and mask [1, size, size]
Pending = list[tuple[Sequence[Prepared], Ticket | Exception]]  # batches, each with the error that it was refused with


class Inpainter:
    """The chain of one bundle with its pre- and post-processing.

    All methods may be called from several threads. On a GPU the networks run for one caller at a time, on a CPU for all
    at the same time.
    """

    def __init__(self, chain: Chain, image_size: int, bundle_digest: str) -> None:
        self.chain, self.image_size, self.bundle_digest = chain, image_size, bundle_digest
        self._device = threading.Lock()
        self._opened: tuple[Any, ...] | None = None  # the arguments of from_bundle

    @classmethod
    def from_bundle(
        cls,
        folder: str | Path | None = None,
        device: str = "auto",
        threads: int | None = None,
        backend: str = "auto",
        cuda_graph: bool = False,
        batch_limit: int | None = None,
        faster: bool = False,
    ) -> Inpainter:
        """Load a bundle, by default the one that ships with the package; see :func:`~.backends.open_chain`.

        Args:
            folder: of the bundle.
            device: ``cpu``, ``cuda:N`` or ``auto``.
            threads: number of CPU threads.
            backend: a value of :class:`~.backends.Backend`.
            cuda_graph: launch the work of engines as CUDA graphs.
            batch_limit: faces a batch at most that will be sent.
            faster: with ``auto``, take the INT8 variant beside the bundle where it was measured to be faster here.

        Raises:
            UsageError: the bundle is broken, or the device is not to be had.
        """
        bundle, reason = open_bundle(folder), ""
        if faster and backend == Backend.AUTO:
            bundle, reason = faster_int8(bundle, device)
        chain = open_chain(bundle, backend, device, threads, cuda_graph, batch_limit)
        chain.description += f"; {reason}" if reason else ""
        made = cls(chain, bundle.manifest.image_size, bundle.digest)
        made._opened = (bundle.folder.absolute(), device, threads, backend, cuda_graph, batch_limit)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Be sent to another process as the bundle's folder, which is opened there again."""
        if self._opened is None:
            raise TypeError("an Inpainter is sent to another process as its bundle; make it by Inpainter.from_bundle")
        return _reopened, (self.bundle_digest, *self._opened)

    def _networks(self) -> AbstractContextManager[Any]:
        """A device's buffers serve one run at a time; sessions on the CPU have none, and share their weights."""
        return nullcontext() if self.chain.device == "cpu" else self._device

    @property
    def default_batch_size(self) -> int:
        """Faces a batch that suit the device: on a CPU more than one only costs memory, half a gigabyte each."""
        return 1 if self.chain.device == "cpu" else 8

    def complete(self, pixels: Pixels, hole: Hole, opaque: bool = False) -> Pixels:
        """Complete one aligned face; see :meth:`complete_batch`.

        >>> face, hole = np.full((256, 256, 3), 128, np.uint8), np.zeros((256, 256), bool)
        >>> hole[96:128, 96:160] = True
        >>> Inpainter.from_bundle(device="cpu").complete(face, hole)[~hole].tolist() == face[~hole].tolist()
        True
        """
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
        if len(faces) == 0:
            return []
        for i, face in enumerate(faces):
            if not isinstance(face, tuple | list) or len(face) != 2:
                raise InputError(f"face {i}: is a {type(face).__name__}; give a pair of pixels and hole")
        prepared = [self.prepare(pixels, hole, f"face {i}") for i, (pixels, hole) in enumerate(faces)]
        completed = self.run(*(np.stack(tensors) for tensors in zip(*prepared, strict=True)))
        return [self.compose(*face, result, opaque) for face, result in zip(faces, completed, strict=True)]

    def prepare(self, pixels: Pixels, hole: Hole, name: str = "face") -> tuple[FloatArray, FloatArray]:
        """Return ``image`` [3, size, size] and ``mask`` [1, size, size] of an aligned face; ``name`` is for errors.

        Raises:
            InputError: the face is not square, or its hole is not bool of the same height and width.
        """
        return prepare(pixels, hole, self.image_size, name)

    def run(self, image: FloatArray, mask: FloatArray) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, size, size] of prepared faces.

        Args:
            image: [B, 3, size, size] in [-1, 1].
            mask: [B, 1, size, size], 1 = hole.
        """
        with self._networks():
            return self.chain.complete(image, mask)

    def run_stages(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Return every tensor of the chain, inputs included.

        Args:
            tensors: ``image`` [B, 3, size, size] in [-1, 1] and ``mask`` [B, 1, size, size], 1 = hole.
        """
        with self._networks():
            return self.chain.run(tensors)

    @staticmethod
    def compose(pixels: Pixels, hole: Hole, completed: FloatArray, opaque: bool = False) -> Pixels:
        """Return the face with ``completed`` [3, size, size] in its hole, all else copied bit by bit.

        Raises:
            InputError: the networks completed it with values that are not finite.
        """
        if not np.isfinite(completed).all():
            raise InputError(NOT_FINITE)
        return composite(pixels, hole, completed, opaque)

    def submit(self, images: Sequence[FloatArray], masks: Sequence[FloatArray]) -> Ticket:
        """Give prepared faces to the networks, whose result :meth:`collect` waits for.

        Args:
            images: of each face [3, size, size] in [-1, 1].
            masks: of each face [1, size, size], 1 = hole.
        """
        with self._networks():
            return self.chain.submit(images, masks)

    def collect(self, ticket: Ticket) -> NDArray[Any]:
        """Return ``completed_image`` [B, 3, size, size] of faces that were submitted."""
        with self._networks():
            return ticket.result()

    def parse(self, image: FloatArray) -> NDArray[Any]:
        """Return the parser's ``semantic_map`` [B, size, size] of prepared faces without holes.

        Raises:
            UsageError: the bundle's chain gives no access to its parser.
            InputError: the parser returned labels of no category.
        """
        session = self.chain.session("parser")
        if session is None:
            raise UsageError("categories are found by a bundle whose parser is a stage of its own; use the default one")
        with self._networks():
            labels = session.run({COARSE_IMAGE: image})[LABELS]
        if labels.min() < 0 or labels.max() >= len(CATEGORIES):
            raise InputError("the parser returned labels of no category")
        return labels

    def occlusion_probability(self, image: FloatArray) -> NDArray[Any]:
        """Return the occluder's probabilities [B, size, size] for prepared faces without holes.

        Raises:
            UsageError: the bundle has no occluder.
            InputError: it returned values that are not finite.
        """
        if self.chain.occluder is None:
            raise UsageError(
                "this bundle has no occluder to find what covers a face; use the default bundle, export one with an "
                "occluder, or give masks"
            )
        with self._networks():
            found = self.chain.occluder.run({OCCLUDER.inputs[0]: image})[OCCLUDER.outputs[0]][:, 0]
        if not np.isfinite(found).all():
            raise InputError(NOT_FINITE)
        return found


def _reopened(digest: str, *opened: Any) -> Inpainter:
    inpainter = Inpainter.from_bundle(*opened)
    if inpainter.bundle_digest != digest:
        raise UsageError(f"{opened[0]}: has changed since it was opened; open it again everywhere")
    return inpainter


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of a backend means that its device has no memory left."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


class BatchRunner:
    """Completes any number of faces in batches of at most ``limit``, which shrinks when memory runs out."""

    def __init__(self, inpainter: Inpainter, limit: int) -> None:
        self.inpainter, self.limit = inpainter, limit

    @property
    def overlaps(self) -> bool:
        """Whether the device works after :meth:`start` has returned, so that more faces can be prepared meanwhile."""
        return self.inpainter.chain.overlaps

    def complete(self, faces: Sequence[Prepared]) -> list[Completed]:
        """Return each completed face [3, size, size], or the error of one that fails even alone.

        A face is ``image`` [3, size, size] in [-1, 1] and ``mask`` [1, size, size], 1 = hole.

        Raises:
            DeviceLostError: no face can be completed any more.
        """
        return self.finish(self.start(faces))

    def start(self, faces: Sequence[Prepared]) -> Pending:
        """Give faces to the networks; :meth:`finish` returns what :meth:`complete` does.

        Raises:
            DeviceLostError: no face can be completed any more.
        """
        pending = Pending()
        for first in range(0, len(faces), self.limit):
            batch = faces[first : first + self.limit]
            try:
                ticket: Ticket | Exception = self.inpainter.submit(*zip(*batch, strict=True))
            except DeviceLostError:
                raise
            except Exception as error:  # the backends raise types of their own
                ticket = error
            pending.append((batch, ticket))
        return pending

    def finish(self, pending: Pending) -> list[Completed]:
        """Wait for faces that were started; a batch that failed is tried again in smaller parts."""
        done: list[Completed] = []
        for batch, ticket in pending:
            try:
                if isinstance(ticket, Exception):
                    raise ticket
                done.extend(_judged(self.inpainter.collect(ticket), len(batch)))
            except DeviceLostError:
                raise
            except Exception as error:
                done.extend(self._again(batch, error))
        return done

    def _again(self, batch: Sequence[Prepared], error: Exception) -> list[Completed]:
        """Complete a batch that failed as a whole."""
        if len(batch) == 1:
            return [InputError(f"the networks failed: {error}")]
        if is_out_of_memory(error):
            half = len(batch) // 2
            if half < self.limit:
                self.limit = half
                logger.info("out of memory with %d faces a batch; going on with %d", len(batch), self.limit)
            return self.complete(batch)
        logger.info("a batch of %d faces failed, trying them one by one: %s", len(batch), error)
        return [result for face in batch for result in self.complete([face])]


def _judged(completed: NDArray[Any], count: int) -> list[Completed]:
    if len(completed) != count:
        raise ShowfaceError(f"they returned {len(completed)} faces for {count}")
    return [face if np.isfinite(face).all() else InputError(NOT_FINITE) for face in completed]
