"""What the CPU is kept busy with: cores, and the start; each against its other, in turn.

python benchmarks/cpu.py cores [--threads 2] [--faces 48] [--rounds 5]
python benchmarks/cpu.py simulate [--faces 400] [--side-by-side 1 8 64]
python benchmarks/cpu.py start [--rounds 10] [--against FOLDER]

``cores`` times a folder run of one batch of 8 on all threads, and of single faces side by side on a thread each; and
the same of the chain alone. ``simulate`` runs a folder on networks that sleep for the time of a face, so many at a
time, and tells what all else costs. ``start`` times ``showface inpaint`` of one photograph from process to file;
``--against`` names a folder with another version of the package, as ``FOLDER/showface/runtime`` and so on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import folder
import numpy as np
from numpy.typing import NDArray

from showface.runtime import Inpainter
from showface.runtime.backends.chain import Chain, Tensors
from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options, io_threads_for
from showface.runtime.batch.run import complete_folder
from showface.runtime.bundle import open_bundle
from showface.runtime.faces.masks import MaskSource
from showface.runtime.stages import CHAIN_OUTPUT

ROOT = Path(__file__).parents[1]


def in_turn(tasks: dict[str, Callable[[], object]], rounds: int) -> None:
    """Print the median seconds of each task, and how the first compares with each, round by round."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for k in range(rounds):
        for name in list(tasks)[:: 1 if k % 2 else -1]:
            started = time.perf_counter()
            tasks[name]()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        low, middle, high = np.percentile(np.asarray(first) / values, (10, 50, 90))
        ratio = (
            f"{middle:.2f} ({low:.2f}–{high:.2f}) × the speed of the first; least times {min(first) / min(values):.2f}"
        )
        print(f"{name}: median {statistics.median(values):.3f} s, least {min(values):.3f} s; {ratio}", flush=True)


def cores(threads: int, faces: int, rounds: int, bundle: Path | None) -> None:
    """Time folder runs and the chain: one batch of 8 on all threads, and single faces on a thread each."""
    together, alone = (Inpainter.from_bundle(bundle, "cpu", count) for count in (threads, 1))
    golden = open_bundle(bundle).golden()
    image, mask = golden["image"][:1], golden["mask"][:1]
    eight = [np.repeat(each, 8, axis=0) for each in (image, mask)]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        images, hole = folder.make_folder(root, faces)
        count = iter(range(10**6))

        def run(inpainter: Inpainter, batch: int, side_by_side: int) -> None:
            output = root / f"out-{next(count)}"
            options = Options(MaskSource("file", hole), batch, side_by_side=side_by_side)
            items = plan_items(images, output, hole)
            results = list(complete_folder(items, inpainter, options, output / "results.jsonl"))
            assert all(result.status == "done" for result in results)

        def singles() -> None:
            def work() -> None:
                for _ in range(faces // threads):
                    alone.run(image, mask)

            callers = [threading.Thread(target=work) for _ in range(threads)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()

        tasks: dict[str, Callable[[], object]] = {
            f"folder, one session of {threads} threads, batch 8": lambda: run(together, 8, 1),
            f"folder, one session of {threads} threads, batch 1": lambda: run(together, 1, 1),
            f"folder, {threads} faces side by side on a thread each": lambda: run(alone, 1, threads),
            f"chain, {threads} threads, batch 8": lambda: [together.run(*eight) for _ in range(faces // 8)],
            f"chain, {threads} threads, batch 1": lambda: [together.run(image, mask) for _ in range(faces)],
            f"chain, {threads} faces side by side on a thread each": singles,
        }
        in_turn(tasks, rounds)


class SleepingChain(Chain):
    """Networks that take a quarter of a second for a face, and no processor."""

    def run(self, inputs: Tensors, given: Tensors | None = None) -> dict[str, NDArray[Any]]:
        """Return the faces as they are."""
        time.sleep(0.25 * len(inputs["image"]))
        return {CHAIN_OUTPUT: inputs["image"]}


def simulate(faces: int, counts: Sequence[int]) -> None:
    """Run folders on networks that sleep, so many faces at a time."""
    inpainter = Inpainter(SleepingChain([], "sleeps"), 256, "0" * 64)
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            images, hole = folder.make_folder(root, faces)
            options = Options(MaskSource("file", hole), 1, io_threads=io_threads_for(count), side_by_side=count)
            started, own, theirs = time.perf_counter(), time.process_time(), sum(os.times()[2:4])
            items = plan_items(images, root / "out", hole)
            results = list(complete_folder(items, inpainter, options, root / "out" / "results.jsonl"))
            assert all(result.status == "done" for result in results)
            seconds, own = time.perf_counter() - started, time.process_time() - own
            theirs = sum(os.times()[2:4]) - theirs
            print(
                f"{count} side by side: {faces / seconds:.1f} faces/s of {4 * count} at most; processor ms a face: "
                f"{own / faces * 1e3:.1f} here, {theirs / faces * 1e3:.1f} in the decoders",
                flush=True,
            )


def start(rounds: int, against: Path | None) -> None:
    """Time ``showface inpaint`` of one photograph."""
    face = sorted((ROOT / "examples" / "faces").iterdir())[0]
    mask = next((ROOT / "examples" / "masks").glob(f"{face.stem}.*"))
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "out.png"
        command = [sys.executable, "-m", "showface.cli", "inpaint", face, output, "--masks", mask, "--device", "cpu"]

        def run(path: str) -> None:
            output.unlink(missing_ok=True)
            environment = {**os.environ, "PYTHONPATH": path}
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=temporary, env=environment)

        tasks: dict[str, Callable[[], object]] = {}
        if against is not None:
            tasks["against"] = lambda: run(str(against))
        tasks["installed"] = lambda: run("")
        in_turn(tasks, rounds)


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cores", "simulate", "start"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--side-by-side", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--against", type=Path, default=None)
    given = parser.parse_args()
    if given.what == "cores":
        cores(given.threads or 2, given.faces, given.rounds, given.bundle)
    elif given.what == "simulate":
        simulate(given.faces, given.side_by_side)
    else:
        start(given.rounds, given.against)


if __name__ == "__main__":
    main()
