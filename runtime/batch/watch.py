"""Watch a folder: complete what is new in it as soon as it is whole."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import InputError, UsageError
from ..images.codec import SUFFIXES
from .item import Item
from .options import Options
from .results_log import RESULTS_FILE, Result
from .run import complete_folder
from .start import Model, plan_without_masks

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two looks; a file that has not changed between them is whole
NAP = 0.1  # seconds after which a wait asks whether it shall end

State = tuple[int, int]  # bytes, and nanoseconds of the last change
Files = dict[Path, State]


def watch_folder(
    source: Path,
    output: Path,
    options: Options,
    suffix: str | None,
    model: Model,
    stopped: Callable[[], bool],
    interval: float = INTERVAL,
) -> Iterator[Result]:
    """Return the results of the images of a folder, and of those that come to it, until ``stopped`` is true.

    An image is taken once neither it nor its mask has changed between two looks; it waits for a mask that is not there
    yet. Each round of new images is a folder run of its own, with the log and the journal of one.
    ``stopped`` is asked between looks, every ``interval`` seconds, and between inputs; true ends the watch after the
    work in flight. A ``batch_size`` of 0 leaves it to the device; a ``side_by_side`` of 0 gives each face all threads.

    Raises:
        UsageError: ``source`` is no folder. Of what is returned: input and output do not fit together, or the networks
            cannot be loaded.
        ShowfaceError: of what is returned: the log cannot be written any more.
    """
    if not source.is_dir():
        raise UsageError(f"{source}: only a folder can be watched; make it, or complete the file without watching")
    return _watch(source, output, options, suffix, model, stopped, interval)


def _watch(
    source: Path,
    output: Path,
    options: Options,
    suffix: str | None,
    model: Model,
    stopped: Callable[[], bool],
    interval: float,
) -> Iterator[Result]:
    """Yield each result once it is final and in the log."""
    limit = options.batch_size or None
    inpainter, together = model.load_for(1, limit)  # how many will come at a time is not known
    size = options.batch_size or inpainter.default_batch_size
    options = replace(options, batch_size=size, side_by_side=together)

    def plan() -> list[Item]:
        return list(plan_without_masks(source, output, options, suffix))

    logger.info("watching %s; stop with Ctrl-C", source)
    for items in rounds(source, plan, options, stopped, interval):
        yield from complete_folder(items, inpainter, options, output / RESULTS_FILE, stopped)


def rounds(
    source: Path, plan: Callable[[], list[Item]], options: Options, stopped: Callable[[], bool], interval: float
) -> Iterator[list[Item]]:
    """Yield what is new and whole, each state of a file once, until ``stopped`` is true."""
    before, done = Files(), Files()
    masks: dict[Path, State | None] = {}
    while not stopped():
        now = look(source)
        fresh = {path for path, state in now.items() if before.get(path) == state != done.get(path)}
        before, items = now, list[Item]()
        for item in plan() if fresh else ():
            if item.source in fresh and _mask_is_whole(item, options, masks):
                done[item.source] = now[item.source]
                items.append(item)
        if items:
            yield items
        until = time.monotonic() + interval
        while time.monotonic() < until and not stopped():
            time.sleep(NAP)


def look(source: Path) -> Files:
    """Return the images below a folder with their states; what goes meanwhile is left out."""
    found: Files = {}
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder) / name
            state = _state(path) if PurePosixPath(name).suffix.lower() in SUFFIXES else None
            if state is not None:
                found[path] = state
    return found


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _mask_is_whole(item: Item, options: Options, masks: dict[Path, State | None]) -> bool:
    """Return whether an item's mask is there and has not changed since ``masks``, its states at the last look."""
    try:
        path = options.masks.find(item.relative)
    except InputError:
        return False
    if path is None:
        return True
    state = _state(path)
    same = masks.get(path) == state
    masks[path] = state
    return same and state is not None
