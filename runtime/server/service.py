"""What the server does with a form: decode, find the hole, complete, encode; bounded at every step."""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..batch.batch_runner import BatchRunner
from ..batch.decoder_process import IsolatedDecoder
from ..batch.options import FORMAT_SUFFIXES, processors, workers
from ..errors import UsageError
from ..faces.category_mask import category_region, region_of_square
from ..faces.masks import Hole, MaskSource, hole_from_mask, hole_of, mask_source
from ..faces.tensors import Array, check_square, composite, prepare
from ..images.codec import Photo, encode_photo
from ..inpainter import Inpainter
from ..stages import CATEGORIES, CHAIN_INPUTS
from .batcher import Batcher
from .form import MIB, Form
from .metrics import Metrics
from .pictures import stage_pictures
from .refusal import Refusal

T = TypeVar("T")

MEDIA_TYPES = {name: f"image/{name}" for name in FORMAT_SUFFIXES}
SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp", b"II": "tiff", b"MM": "tiff", b"BM": "bmp"}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes at once.

    Attributes:
        in_flight: requests that were taken and are not answered; one more is answered with 503.
        upload: bytes of a request's body.
        batch: faces that go through the networks together.
        batch_wait: seconds that the first face of a batch waits for others.
    """

    in_flight: int = 32
    upload: int = 32 * MIB
    batch: int = 1
    batch_wait: float = 0.003


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A decoded request: the photo with its hole, and what the networks take of it."""

    photo: Photo
    hole: Hole
    opaque: bool
    format: str
    image: Array
    mask: Array


class Service:
    """Completes what forms hold. Close it, or use it in a ``with``.

    Args:
        inpainter: that completes.
        limits: of what is taken at once.
        say: takes a line about what the operator should know.

    Raises:
        UsageError: the decoder process cannot be started.
    """

    def __init__(self, inpainter: Inpainter, limits: Limits, say: Callable[[str], None]) -> None:
        self.inpainter, self.limits, self.metrics = inpainter, limits, Metrics()
        self.in_flight = 0
        threads = max(2, processors())
        # Decoded photographs are large: only as many are held as keep decoders, networks and encoders at work.
        self._decoded = asyncio.Semaphore(2 * limits.batch + threads)
        self._decoders: queue.SimpleQueue[IsolatedDecoder] = queue.SimpleQueue()
        with ExitStack() as stack:
            for _ in range(workers(processors())):
                self._decoders.put(stack.enter_context(IsolatedDecoder()))
            self._threads = stack.enter_context(ThreadPoolExecutor(threads, "pictures"))
            runner = BatchRunner(inpainter, limits.batch, say)
            self._batcher = stack.enter_context(Batcher(runner, limits.batch_wait, self.metrics.batch))
            self._warm_up()
            self._close = stack.pop_all().close

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _warm_up(self) -> None:
        """Complete nothing once, so that the first client does not pay for what the backend does at its first run."""
        size = self.inpainter.image_size
        self._batcher.submit(np.zeros((3, size, size), np.float32), np.ones((1, size, size), np.float32)).result()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place among the requests in flight.

        Raises:
            Refusal: 503, all places are taken.
        """
        if self.in_flight >= self.limits.in_flight:
            after = str(max(1, math.ceil(self.metrics.mean_seconds)))
            sentence = f"the server is busy with {self.in_flight} requests; send it again in {after} s"
            raise Refusal(503, sentence, {"Retry-After": after})
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def complete(self, form: Form) -> tuple[bytes, str]:
        """Return the completed picture, encoded, and its media type.

        Raises:
            Refusal: 400, a text of the form means nothing.
            InputError: the picture or its mask cannot be used.
            NetworksFailed: the networks cannot complete it.
        """
        async with self._decoded:
            loaded = await self._work(lambda: self._load(form))
            completed = None
            if loaded.hole.any():
                completed = await asyncio.wrap_future(self._batcher.submit(loaded.image, loaded.mask))
            return await self._work(lambda: _encode(loaded, completed)), MEDIA_TYPES[loaded.format]

    async def stages(self, form: Form) -> dict[str, Any]:
        """Return pictures of what every stage makes of the form's face; the errors are those of :meth:`complete`."""
        async with self._decoded:
            return await self._work(lambda: self._show(self._load(form)))

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _load(self, form: Form) -> _Loaded:
        source, chosen = _source_of(form), _format_of(form)
        photo, given = self._decode(form)
        check_square(photo.pixels, "image")
        if given is not None:
            hole = hole_from_mask(given.pixels, photo.pixels.shape[:2], "mask")
        elif source.kind == "class":
            hole = self._hole_of_categories(photo, source)
        else:
            hole = hole_of(photo, source, None, "image")
        image, mask = prepare(photo.pixels, hole, self.inpainter.image_size, "image")
        return _Loaded(photo, hole, source.kind == "alpha", chosen, image, mask)

    def _decode(self, form: Form) -> tuple[Photo, Photo | None]:
        decoder = self._decoders.get()
        try:
            return decoder.decode(form.image, "image"), None if form.mask is None else decoder.decode(form.mask, "mask")
        finally:
            self._decoders.put(decoder)

    def _hole_of_categories(self, photo: Photo, source: MaskSource) -> Hole:
        side = photo.pixels.shape[0]
        image, _ = prepare(photo.pixels, np.zeros((side, side), np.bool_), self.inpainter.image_size, "image")
        region = category_region(self.inpainter.parse(image[None])[0], source.categories, source.margin)
        return region_of_square(region, side)

    def _show(self, loaded: _Loaded) -> dict[str, Any]:
        inputs = dict(zip(CHAIN_INPUTS, (loaded.image[None], loaded.mask[None]), strict=True))
        tensors = self.inpainter.run_stages(inputs)
        return stage_pictures([session.stage for session in self.inpainter.chain.sessions], tensors)


def _encode(loaded: _Loaded, completed: NDArray[Any] | None) -> bytes:
    photo, pixels = loaded.photo, loaded.photo.pixels
    if completed is not None:
        pixels = composite(pixels, loaded.hole, completed, loaded.opaque)
    return encode_photo(pixels, FORMAT_SUFFIXES[loaded.format], photo.lossy, photo.profile, photo.exif)


def _source_of(form: Form) -> MaskSource:
    if form.mask_from is None:
        return MaskSource("file")
    try:
        if form.mask_from != "file":
            return mask_source(form.mask_from, None)
    except UsageError:
        pass
    known = f"alpha, color:#RRGGBB, or class:NAME,… with names out of {', '.join(CATEGORIES)}"
    raise Refusal(400, f"the field 'mask_from' is {form.mask_from[:40]!r}; send {known}")


def _format_of(form: Form) -> str:
    """Return the key of the reply's format; ``same`` is what the picture itself is."""
    if form.format in FORMAT_SUFFIXES:
        return form.format
    if form.format != "same":
        raise Refusal(400, f"the field 'format' is {form.format[:40]!r}; send same, {', '.join(FORMAT_SUFFIXES)}")
    return next((name for start, name in SIGNATURES.items() if form.image.startswith(start)), "png")
