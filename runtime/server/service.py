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

from ..backends.processors import processors
from ..batch.options import FORMAT_SUFFIXES, io_threads_for
from ..errors import UsageError
from ..faces.found_masks import MaskNote
from ..faces.masks import MaskSource, mask_source
from ..images.codec import encode_photo
from ..images.decoder_process import IsolatedDecoder
from ..inpainter import BatchRunner, Inpainter
from ..picture import Picture, format_of, load_picture
from ..stages import CATEGORIES, CHAIN_INPUTS
from .batcher import Batcher
from .form import MIB, Form
from .metrics import Metrics
from .pictures import stage_pictures
from .refusal import Refusal

T = TypeVar("T")


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


class Service:
    """Completes what forms hold. Close it, or use it in a ``with``.

    Raises:
        UsageError: the decoder process cannot be started.
    """

    def __init__(self, inpainter: Inpainter, limits: Limits) -> None:
        self.inpainter, self.limits, self.metrics = inpainter, limits, Metrics()
        self.in_flight = 0
        threads = max(2, processors())
        # Decoded photographs are large: only as many are held as keep decoders, networks and encoders at work.
        self._decoded = asyncio.Semaphore(2 * limits.batch + threads)
        self._decoders: queue.SimpleQueue[IsolatedDecoder] = queue.SimpleQueue()
        with ExitStack() as stack:
            for _ in range(io_threads_for(processors())):
                self._decoders.put(stack.enter_context(IsolatedDecoder()))
            self._threads = stack.enter_context(ThreadPoolExecutor(threads, "pictures"))
            runner = BatchRunner(inpainter, limits.batch)
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

    @property
    def finds_occlusions(self) -> bool:
        """Whether the bundle has an occluder, so that no mask need be sent."""
        return self.inpainter.chain.occluder is not None

    @property
    def device_lost(self) -> bool:
        """Whether the device answers no more, so that only a restart helps."""
        return self._batcher.lost

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

    async def complete(self, form: Form) -> tuple[bytes, str, MaskNote | None]:
        """Return the completed picture, encoded, its media type, and what is known of a hole that was found.

        Raises:
            Refusal: 400, a text of the form means nothing.
            InputError: the picture or its mask cannot be used.
            NetworksFailed: the networks cannot complete it.
        """
        async with self._decoded:
            picture, chosen = await self._work(lambda: self._load(form))
            completed = None
            if picture.hole.any():
                completed = await asyncio.wrap_future(self._batcher.submit(picture.image, picture.mask))
            data = await self._work(lambda: picture.encode(completed, chosen))
            return data, f"image/{chosen}", picture.note

    async def mask(self, form: Form) -> tuple[bytes, MaskNote | None]:
        """Return the hole of the form's face as a PNG, white = hole, and what is known of one that was found.

        The errors are those of :meth:`complete`.
        """

        def work() -> tuple[bytes, MaskNote | None]:
            picture = self._load(form)[0]
            white = np.where(picture.hole, np.uint8(255), np.uint8(0))
            return encode_photo(white, ".png", lossy=False), picture.note

        async with self._decoded:
            return await self._work(work)

    async def stages(self, form: Form) -> dict[str, Any]:
        """Return pictures of what every stage makes of the form's face; the errors are those of :meth:`complete`."""
        async with self._decoded:
            return await self._work(lambda: self._show(self._load(form)[0]))

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _load(self, form: Form) -> tuple[Picture, str]:
        source, chosen = _source_of(form), _format_of(form)
        if source.kind == "occlusion" and not self.finds_occlusions:
            asked = "has neither 'mask' nor 'mask_from'" if form.mask_from is None else "asks for 'occlusion'"
            raise Refusal(400, f"the form {asked}, but this server's bundle has no occluder; send a mask")
        decoder = self._decoders.get()
        try:
            return load_picture(form.image, form.mask, source, self.inpainter, decoder.decode), chosen
        finally:
            self._decoders.put(decoder)

    def _show(self, picture: Picture) -> dict[str, Any]:
        inputs = dict(zip(CHAIN_INPUTS, (picture.image[None], picture.mask[None]), strict=True))
        tensors = self.inpainter.run_stages(inputs)
        return stage_pictures([session.stage for session in self.inpainter.chain.sessions], tensors)


def _source_of(form: Form) -> MaskSource:
    if form.mask is not None:
        return MaskSource("file")
    named = "occlusion" if form.mask_from is None else form.mask_from
    try:
        if named != "file":
            return mask_source(named, None)
    except UsageError:
        pass
    known = f"alpha, color:#RRGGBB, occlusion, or class:NAME,… with names out of {', '.join(CATEGORIES)}"
    raise Refusal(400, f"the field 'mask_from' is {named[:40]!r}; send {known}")


def _format_of(form: Form) -> str:
    """Return the format of the reply; ``same`` is what the picture itself is."""
    if form.format in FORMAT_SUFFIXES:
        return form.format
    if form.format != "same":
        raise Refusal(400, f"the field 'format' is {form.format[:40]!r}; send same, {', '.join(FORMAT_SUFFIXES)}")
    return format_of(form.image)
