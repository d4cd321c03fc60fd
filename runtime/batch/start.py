"""Start a run: list the inputs, load the networks here or on a cluster, and hand out the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..backends import Backend
from ..bundle import open_bundle
from ..errors import UsageError, extra
from ..inpainter import Inpainter
from .inputs import plan_items
from .item import Item
from .options import Options, absolute, shared_threads
from .read_input import InputReaders
from .results_log import RESULTS_FILE, Result
from .run import complete_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """Which networks complete the faces, and on what.

    Attributes:
        bundle: folder; None takes the one that ships with the package.
        backend: a value of ``Backend``.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        threads: number of CPU threads; None takes all.
        cuda_graph: launch the work of engines as CUDA graphs.
        side_by_side: batches that are completed at the same time on a CPU, and share ``threads``; 0 leaves it to the
            machine.
    """

    bundle: Path | None = None
    backend: str = Backend.AUTO
    device: str = "auto"
    threads: int | None = None
    cuda_graph: bool = False
    side_by_side: int = 0

    def load(self, batch_limit: int | None, faster: bool = True) -> Inpainter:
        """Load them. No batch will be larger than ``batch_limit``.

        ``faster`` takes the INT8 variant where it was measured to be faster.

        Raises:
            UsageError: the bundle is broken, or the device is not to be had.
        """
        return Inpainter.from_bundle(
            self.bundle, self.device, self.threads, self.backend, self.cuda_graph, batch_limit, faster=faster
        )

    def load_for(self, faces: int, batch_limit: int | None, faster: bool = True) -> tuple[Inpainter, int]:
        """Load them for ``faces`` that wait, and say on what they run; see :meth:`load`.

        Returns:
            The networks, and how many batches they complete at the same time: ``side_by_side`` where it is given.
        """
        together, threads = shared_threads(self.side_by_side, self.threads, faces)
        inpainter = replace(self, threads=threads).load(batch_limit, faster)
        logger.info("using %s", inpainter.chain.description)
        if inpainter.chain.device != "cpu":
            return inpainter, 1  # its buffers serve one batch at a time
        if together > 1:
            each = "one thread" if threads == 1 else f"{threads} threads"
            logger.info("%d faces side by side, on %s each", together, each)
        return inpainter, together


@dataclass(frozen=True, slots=True)
class FolderRun:
    """A run that can start.

    Attributes:
        items: its inputs in the order of their names, each with its output.
        options: what is done to each image; a ``batch_size`` of 0 leaves it to the device.
        output: the folder of the outputs, or the one named output.
        log: ``results.jsonl`` in the output folder; None for one named output.
        cluster: address of a Ray cluster; None runs here.
    """

    items: Sequence[Item]
    options: Options
    output: Path
    log: Path | None
    cluster: str | None

    def start(self, model: Model, stopped: Callable[[], bool]) -> Iterator[Result]:
        """Load the networks and return the results, which come as they are finished.

        ``stopped`` is asked between inputs; true ends the run after the work in flight.

        Raises:
            UsageError: the networks cannot be loaded, the cluster cannot be reached, or the log cannot be opened.
            ShowfaceError: the log cannot be written any more; the run ends, and can be continued.
        """
        if self.cluster is not None:
            return self._start_on_cluster(self.cluster, model, stopped)
        limit = self.options.batch_size or None
        if self.options.alignment is None:  # then an input has one face
            limit = min(len(self.items), limit or len(self.items))
        readers = InputReaders(self.options)
        readers.start_decoder()
        try:
            inpainter, together = model.load_for(len(self.items), limit)
        except BaseException:
            readers.close()
            raise
        size = self.options.batch_size or inpainter.default_batch_size
        options = replace(self.options, batch_size=size, side_by_side=together)
        return complete_folder(self.items, inpainter, options, self.log, stopped, readers=readers)

    def _start_on_cluster(self, address: str, model: Model, stopped: Callable[[], bool]) -> Iterator[Result]:
        if self.log is None:
            raise UsageError("a cluster completes folders; give a folder as output", "cluster")
        if model.cuda_graph:
            raise UsageError("CUDA graphs are launched without a cluster; leave one of them out", "cuda_graph")
        with extra("cluster"):
            from .ray_cluster import Setup, process_on_cluster
        opened = open_bundle(model.bundle)
        model = replace(model, bundle=opened.folder.absolute() if model.bundle else None)
        setup = Setup(model, opened.digest, self.output, self.options)
        return process_on_cluster(self.items, setup, self.log, address, stopped)


def plan_without_masks(source: Path, output: Path, options: Options, suffix: str | None) -> Sequence[Item]:
    """List the inputs of a run, its masks left out; see :func:`~.inputs.plan_items`."""
    masks, distinct_stems = options.masks, options.save_masks is not None
    if masks.beside:
        return plan_items(source, output, None, suffix, distinct_stems, masks.suffix)
    return plan_items(source, output, masks.path, suffix, distinct_stems)


def plan_run(source: Path, output: Path, options: Options, suffix: str | None, cluster: str | None) -> FolderRun:
    """List the inputs of a run and check that they fit the output; see :func:`~.inputs.plan_items`.

    Raises:
        UsageError: there is nothing to do, or input and output do not fit together.
    """
    if cluster is not None:
        source, output, options = Path(os.path.abspath(source)), Path(os.path.abspath(output)), absolute(options)
    items = plan_without_masks(source, output, options, suffix)
    single = source.is_file() and items[0].output == output
    return FolderRun(items, options, output, None if single else output / RESULTS_FILE, cluster)
