"""What a hundred thousand small files cost: start, memory, resuming, the log; with networks of a hundredth of the size.

python benchmarks/many_files.py [--files 1000 10000 100000] [--seconds 60] [--bundle DIR] [--keep DIR]

The first run of each folder is stopped after some seconds, and tells start, cost of a file and memory. The rest of the
folder is then finished here as a run would have left it, without the networks. Resuming and verifying are whole runs.

Needs the extra ``export``: the narrow bundle is made here, of 64² pixels, so that the files and not the networks count.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import folder
import numpy as np

from showface.runtime.batch.options import Options
from showface.runtime.batch.results_log import Result, read_results, result_key, stamp_of
from showface.runtime.bundle import open_bundle
from showface.runtime.faces.masks import MaskSource
from showface.runtime.images.codec import encode_photo

SIDE = 64
FOLDER = 1000  # files a folder


def make_bundle(folder: Path) -> Path:
    """Export an untrained chain of few channels."""
    import torch

    from showface.export.bundle import export_bundle
    from showface.training.checkpoint import save_checkpoint
    from showface.training.config import (
        CoarseConfig,
        LayoutConfig,
        MemoryConfig,
        NetworkConfig,
        ParserConfig,
        RefinerConfig,
    )
    from showface.training.networks.mdrnets import MDRNets

    torch.manual_seed(0)
    layout = LayoutConfig(widths=(8, 8, 8), full_width=8)
    config = NetworkConfig(
        image_size=SIDE,
        coarse=CoarseConfig(widths=(8, 8, 8, 8), full_width=8, layout=layout),
        parser=ParserConfig(width=16),
        memory=MemoryConfig(channels=16, slots=8, encoder_width=8),
        refiner=RefinerConfig(body_widths=(8, 8, 8), detail_widths=(8, 8, 8), dilations=(2,), spade_hidden=8),
    )
    model = MDRNets(config).eval()
    checkpoint = folder / "narrow.safetensors"
    save_checkpoint(checkpoint, model, config, [name for name, _ in model.named_children()], {})
    random = np.random.default_rng(0)
    image = random.uniform(-1, 1, (2, 3, SIDE, SIDE)).astype(np.float32)
    mask = np.zeros((2, 1, SIDE, SIDE), np.float32)
    mask[:, :, 20:40, 20:40] = 1
    export_bundle(checkpoint, folder / "narrow", (image * (1 - mask), mask))
    return folder / "narrow"


def make_files(folder: Path, count: int) -> tuple[Path, Path]:
    """Write ``count`` pictures of 64², each a file of its own, and one mask."""
    random = np.random.default_rng(0)
    images = folder / f"in-{count}"
    pictures = []
    for _ in range(50):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        pictures.append(encode_photo(pixels, ".png", lossy=False))
    for k in range(count):
        if k % FOLDER == 0:
            (images / f"{k // FOLDER:03d}").mkdir(parents=True)
        (images / f"{k // FOLDER:03d}" / f"{k:06d}.png").write_bytes(pictures[k % len(pictures)])
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 20:40] = 255
    (folder / "mask.png").write_bytes(encode_photo(mask, ".png", lossy=False))
    return images, folder / "mask.png"


def count_lines(log: Path) -> int:
    """Return the lines of a log; 0 where there is none."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def finish(images: Path, output: Path, mask: Path, bundle: Path) -> None:
    """Leave the folder as a whole run would: an output for each input, and its line."""
    digest, recipe = open_bundle(bundle).digest, Options(MaskSource("file", mask)).describe("")
    log, covered = output / "results.jsonl", mask.read_bytes()
    done = {result.input for result in read_results(log)}
    with log.open("a") as lines:
        for path in sorted(images.rglob("*.png")):
            name = path.relative_to(images).as_posix()
            if name in done:
                continue
            data = path.read_bytes()
            key, stamp = result_key(data, covered, digest, recipe), stamp_of([path, mask], digest, recipe)
            (output / name).parent.mkdir(exist_ok=True)
            (output / name).write_bytes(data)
            result = Result(name, name, "done", None, 0.0977, 0.0123, key, {"from": "file"}, stamp)
            lines.write(json.dumps(asdict(result)) + "\n")


class Run:
    """A run of ``showface inpaint`` in a process of its own.

    Attributes:
        first: seconds from its start to its first line in the log.
        seconds: from then until its end.
        cpu: processor seconds, of its decoders too.
        lines: that it wrote.
        peak: largest resident set, MiB.
    """

    def __init__(
        self, images: Path, output: Path, mask: Path, bundle: Path, *options: str, limit: float | None = None
    ) -> None:
        command = [sys.executable, "-m", "showface.cli", "--threads", "1", "inpaint", images, output, "--masks", mask]
        command += ["--bundle", bundle, "--device", "cpu", *options]
        log = output / "results.jsonl"
        size = log.stat().st_size if log.exists() else 0
        lines = count_lines(log)
        started, self.first, self.peak, ended = time.perf_counter(), 0.0, 0.0, threading.Event()
        before = os.times()
        process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)

        def look() -> None:
            while not ended.wait(0.02):
                self.peak = max(self.peak, folder.peak_memory(process.pid))
                if not self.first and log.exists() and log.stat().st_size > size:
                    self.first = time.perf_counter() - started

        watcher = threading.Thread(target=look)
        watcher.start()
        timer = threading.Timer(limit or 1e6, process.terminate)
        timer.start()
        process.wait()
        timer.cancel()
        ended.set()
        watcher.join()
        assert process.returncode in ((0,) if limit is None else (0, 128 + signal.SIGTERM))
        self.seconds = time.perf_counter() - started - self.first
        after = os.times()
        self.cpu = sum(after[2:4]) - sum(before[2:4])
        self.lines = count_lines(log) - lines


def main() -> None:
    """Complete folders of several lengths, resume each, verify each, and read its log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the first run of a folder")
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="work here, and leave it")
    given = parser.parse_args()
    print("| files | run | s to the first line | lines | s from it | CPU s | ms a file | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        root.mkdir(exist_ok=True)
        bundle = given.bundle or make_bundle(root)
        for count in given.files:
            images, mask = make_files(root, count)
            output = root / f"out-{count}"
            time.sleep(3)  # until the files are old enough to have stamps
            report(count, "complete", Run(images, output, mask, bundle, limit=given.seconds))
            finish(images, output, mask, bundle)
            report(count, "resume", Run(images, output, mask, bundle))
            report(count, "verify", Run(images, output, mask, bundle, "--verify"))
            started, spent = time.perf_counter(), time.process_time()
            lines = sum(1 for _ in read_results(output / "results.jsonl"))
            seconds, spent = time.perf_counter() - started, time.process_time() - spent
            figures = f"{lines} | {seconds:.2f} | {spent:.2f} | {seconds / lines * 1e3:.4f}"
            print(f"| {count} | read the log | | {figures} | |", flush=True)


def report(count: int, name: str, run: Run) -> None:
    """Print the line of one run."""
    figures = f"{run.first:.1f} | {run.lines} | {run.seconds:.1f} | {run.cpu:.1f} | {run.seconds / run.lines * 1e3:.3f}"
    print(f"| {count} | {name} | {figures} | {run.peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
