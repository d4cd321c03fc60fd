"""The same work on a Ray cluster: one model a worker, one ``results.jsonl``, dead workers' files done again.

The driver holds the log and its lock, and hands out chunks of inputs; a worker runs the threads of a local run on each
chunk and writes the outputs to the shared folder, under a journal of its own. Where a worker dies, Ray starts another
and gives it the chunk again; what the dead one had already written is taken over from its journal.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions

from ..backends.processors import processors
from ..bundle import open_bundle
from ..errors import ShowfaceError, UsageError
from ..inpainter import BatchRunner, Inpainter
from .item import Item
from .journal import Journal, discard, end_runs, recover, start_run
from .options import Options, io_threads_for
from .read_input import InputReader, InputReaders
from .results_log import Result, ResultLog
from .run import OpenReader, complete_items, open_log, with_history
from .start import Model

logger = logging.getLogger(__name__)

CHUNK = 16  # inputs that a worker is given at once
RETRIES = 2  # of a chunk whose worker died
LOCAL = "local"
REACH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What every worker needs to know; all paths are absolute, and name the same files on every machine.

    Attributes:
        model: the networks; its device is one of those that Ray gives the worker, its threads are those of a worker:
            None gives each machine one worker with all its processors. Each worker has ``side_by_side`` batches.
        digest: of the bundle's manifest, so that no worker runs another one.
        output: the output folder.
        options: of the run; a ``batch_size`` of 0 leaves it to the worker's device.
    """

    model: Model
    digest: str
    output: Path
    options: Options


class _Messages(logging.Handler):
    """Keeps what the library says on a worker, for the driver to say it again."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        self._texts.append(record.getMessage())

    def take(self) -> list[str]:
        """Return what was said since the last time."""
        texts, self._texts = self._texts, []
        return texts


class Worker:
    """One model on one machine; Ray Data calls it with one chunk of tasks after the other."""

    def __init__(self, setup: Setup, run: Path) -> None:
        model = setup.model
        if open_bundle(model.bundle).digest != setup.digest:
            raise UsageError("the bundle on a worker differs from the driver's; install the same version everywhere")
        # Not the faster of two variants: on each machine that may be another one.
        inpainter, together = model.load_for(CHUNK, None, faster=False)
        size = setup.options.batch_size or inpainter.default_batch_size
        self.runner = BatchRunner(inpainter, size)  # a batch that was halved stays so
        count = io_threads_for(model.threads or processors())
        self.options = replace(setup.options, batch_size=size, io_threads=count, side_by_side=together)
        self.output = setup.output
        self.open_reader = _kept(InputReaders(self.options).open)
        self.journal = Journal(setup.output, run)
        self.messages = _Messages()
        library = logging.getLogger("showface")
        library.setLevel(logging.INFO)
        library.addHandler(self.messages)

    def __call__(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Complete the items of a chunk, and return their results, what is to be said, and what has to end the run."""
        items = [item_of(text) for text in chunk["item"]]
        lines: list[dict[str, Any]] = [{"result": asdict(result)} for result in self._recover_from_dead_worker(items)]
        known = {line["result"]["input"] for line in lines}
        remaining = iter([item for item in items if item.result.input not in known])
        next_item = partial(next, remaining, None)
        try:
            for result in complete_items(next_item, self.runner, self.options, self.open_reader, self.journal):
                lines.append({"result": asdict(result)})
        except ShowfaceError as error:
            lines.append({"end": str(error)})
        except Exception as error:  # not left to Ray, which goes on after what it takes for the fault of one chunk
            lines.append({"end": f"{type(error).__name__}: {error}"})
        lines += [{"say": text} for text in self.messages.take()]
        return {"line": np.asarray([json.dumps(line) for line in lines], object)}

    def _recover_from_dead_worker(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of a worker that had this chunk before and died."""
        unexplained = {item.result.input for item in items if not item.replace and os.path.lexists(item.output)}
        if not unexplained:
            return []
        return list(recover(self.output, lambda result: result.input in unexplained))


def _kept(readers: OpenReader) -> OpenReader:
    """Return ``readers`` that stay open for the next chunk: a decoder takes longer to start than a chunk to read."""
    idle: list[InputReader] = []
    opened = ExitStack()  # ends with the worker

    @contextmanager
    def open_reader(inpainter: Inpainter) -> Iterator[InputReader]:
        try:
            reader = idle.pop()
        except IndexError:
            reader = opened.enter_context(readers(inpainter))
        yield reader
        idle.append(reader)

    return open_reader


def process_on_cluster(
    items: Sequence[Item], setup: Setup, log: Path, address: str, stopped: Callable[[], bool]
) -> Iterator[Result]:
    """Complete all items on a Ray cluster, as :func:`showface.runtime.batch.run.complete_folder` does on one machine.

    All paths are absolute. The address ``local`` starts a cluster on this machine.

    Raises:
        UsageError: the cluster cannot be reached, or the log cannot be opened.
        ShowfaceError: the workers cannot be kept alive, or the log cannot be written.
    """
    InputReaders(setup.options)  # refuses what no worker could read
    results = open_log(log)
    reported: set[str] = set()

    def report(result: Result) -> Result:
        results.append(result)
        reported.add(result.input)
        return result

    try:
        run = start_run(log.parent)
        with _connected(address):
            yield from map(report, _distribute(items, setup, run, results, stopped))
        # What the workers had finished, but not returned, counts too. One that still lives finishes nothing more.
        end_runs(log.parent)
        yield from map(report, recover(log.parent, lambda result: result.input not in reported))
        if not stopped():
            yield from map(report, _lost(items, setup, results, reported))
        results.flush()
        discard(log.parent)
    finally:
        results.close()


def _lost(items: Sequence[Item], setup: Setup, results: ResultLog, reported: set[str]) -> Iterator[Result]:
    """Yield a failure for each input of the chunks that were given up."""
    for item in items:
        if item.relative.as_posix() not in reported:
            text = (
                f"{item.source}: its worker died {RETRIES + 1} times with this and up to {CHUNK - 1} other inputs; "
                "remove the one that does it, and run the same again"
            )
            yield replace(with_history(item, setup.options, results).result, error=text)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one that listens on the loopback address alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    start: dict[str, Any] = {"address": address}
    if address == LOCAL:
        start |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": processors()}
    try:
        _knock(address)
        ray.init(**start, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(
            f"{address} cannot be reached: {error}; start a cluster with: ray start --head", "cluster"
        ) from error
    for number, handler in handlers.items():  # Ray has put its own there, which would end the run at once
        signal.signal(number, handler)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # one that kills its workers is given up, and the others are done
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        with suppress(Exception):
            ray.shutdown()


def _knock(address: str) -> None:
    """Try ``host:port`` for a moment: Ray itself tries for minutes, and then ends the process."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


def _distribute(
    items: Sequence[Item],
    setup: Setup,
    run: Path,
    results: ResultLog,
    stopped: Callable[[], bool],
) -> Iterator[Result]:
    rows = [{"item": row_of(with_history(item, setup.options, results))} for item in items]
    listed: Any = ray.nodes  # has no types
    nodes = [node["Resources"] for node in listed() if node["Alive"]]
    free = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    threads, gpus, count = share(free, setup.model.threads, setup.model.device)
    logger.info("%d workers with %s each", count, f"{gpus} GPU" if gpus else f"{threads} CPU threads")
    chunks = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // CHUNK))
    done = chunks.map_batches(
        Worker,
        fn_constructor_args=(replace(setup, model=replace(setup.model, threads=threads)), run),
        batch_size=CHUNK,
        # One at a time: a chunk that waited in a dying worker would lose one of its retries for another's fault.
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=threads,
        num_gpus=gpus or None,
        max_task_retries=RETRIES,
    )
    try:
        for row in done.iter_rows():
            line = json.loads(row["line"])
            if "say" in line:
                logger.info("%s", line["say"])
            elif "end" in line:
                raise ShowfaceError(f"a worker ended the run: {line['end']}")
            else:
                yield Result(**line["result"])
            if stopped():
                return
    except ray.exceptions.RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise ShowfaceError(f"the workers failed: {cause}; run the same again") from error


def share(nodes: Sequence[tuple[int, int]], threads: int | None, device: str) -> tuple[int, int, int]:
    """Return CPU threads and GPUs of a worker, and how many workers nodes of so many CPUs and GPUs have room for.

    Raises:
        UsageError: there is room for none.
    """
    gpu = int(device != "cpu" and any(gpus for _, gpus in nodes))
    threads = threads or (1 if gpu else min((cpus for cpus, _ in nodes if cpus), default=1))
    count = sum(min(cpus // threads, gpus) if gpu else cpus // threads for cpus, gpus in nodes)
    if not count:
        most = max((cpus for cpus, gpus in nodes if gpus >= gpu), default=0)
        raise UsageError(
            f"no machine {'with a GPU ' if gpu else ''}has {threads} CPUs free for a worker; "
            f"the largest has {most}: use fewer threads a worker",
            "cluster",
        )
    return threads, gpu, count


def row_of(item: Item) -> str:
    """Return an item that is not yet read as JSON, which holds names of any bytes; the inverse of :func:`item_of`."""
    paths = [str(item.source), str(item.relative), str(item.output), item.error]
    before = None if item.before is None else asdict(item.before)
    return json.dumps({"paths": paths, "result": asdict(item.result), "before": before, "replace": item.replace})


def item_of(text: str) -> Item:
    """Return the item of a row; see :func:`row_of`."""
    row = json.loads(text)
    source, relative, output, error = row["paths"]
    before = None if row["before"] is None else Result(**row["before"])
    return Item(Path(source), Path(relative), Path(output), error, Result(**row["result"]), before, row["replace"])
