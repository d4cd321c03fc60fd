"""Speed and memory of a training step: eager or compiled, float32 or bfloat16, each in its own process.

    python benchmarks/training.py [--device cpu] [--threads N] [--batch-size 8] [--steps 6] [--stages coarse,mdrnet]

Prints a Markdown table: images a second, the share of the time that the step waited for its samples
(memory mode), and peak memory. Faces are random pixels, masks are drawn: content does not matter here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from showface.runtime.backends.int8 import cpu_name
from showface.training.checkpoint import save_checkpoint
from showface.training.config import FeedConfig, MaskConfig, PhaseConfig, SourceConfig, TrainConfig
from showface.training.networks.mdrnets import MDRNets
from showface.training.process import make_fabric
from showface.training.run.loop import Trainer
from showface.training.tasks.table import TASKS

FACES = 32
WARM_UP = 2


def make_faces(folder: Path) -> None:
    """Write random faces and label maps."""
    rng = np.random.default_rng(0)
    for name, shape, top in (("images", (256, 256, 3), 256), ("labels", (256, 256), 19)):
        (folder / name).mkdir()
        for i in range(FACES):
            cv2.imwrite(str(folder / name / f"{i}.png"), rng.integers(0, top, shape, np.uint8))


def timed(batches: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """Pass batches on and note how long each was waited for."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        waits.append(time.perf_counter() - started)
        if batch is None:
            return
        yield batch


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Run some steps of one case in this process."""
    if case["threads"]:
        torch.set_num_threads(case["threads"])
    steps = WARM_UP + case["steps"]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make_faces(data)
        config = TrainConfig(
            {"random": SourceConfig("images", labels="labels")},
            {"full": PhaseConfig(steps, case["batch_size"])},
            masks=MaskConfig(folder=None, drawn=FACES),
            feed=FeedConfig("memory"),
            precision=case["precision"],
            compile=case["compiled"],
            memory_faces=FACES,
        )
        needed = TASKS[case["stage"]].needed(config)
        if needed:
            torch.manual_seed(0)
            save_checkpoint(data / "frozen.safetensors", MDRNets(config.network), config.network, needed, {})
            config = replace(config, init=("frozen.safetensors",))
        trainer = Trainer(case["stage"], config, data, data, make_fabric(case["device"], 1, case["precision"]))
        waits: list[float] = []
        cuda = case["device"] == "cuda"
        for index, batch in enumerate(timed(iter(trainer.feed.batches(0)), waits)):
            if index == WARM_UP:
                if cuda:
                    torch.cuda.synchronize()
                started = time.perf_counter()
            trainer.begin_step()
            trainer.train_step(batch)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident
    return {
        "images_per_second": case["steps"] * case["batch_size"] / seconds,
        "waiting": sum(waits[WARM_UP:]) / seconds,
        "peak_mib": peak,
    }


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--stages", default="parser,coarse,reconstruction,mdrnet")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(json.loads(arguments.case))))
        return
    settings = {n: getattr(arguments, n) for n in ("device", "threads", "batch_size", "steps")}
    threads = arguments.threads or torch.get_num_threads()
    print(f"{cpu_name()}, {threads} threads, torch {torch.__version__}, device {arguments.device}, ", end="")
    print(f"batch {arguments.batch_size}, 256×256\n")
    print("| stage | precision | mode | images/s | × eager fp32 | waiting for data | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    base: dict[str, float] = {}
    cases = list(product(arguments.stages.split(","), ("fp32", "bf16"), (False, True)))
    for stage, precision, compiled in track(cases, console=Console(stderr=True), transient=True):
        case = {**settings, "stage": stage, "precision": precision, "compiled": compiled}
        run = subprocess.run([sys.executable, __file__, "--case", json.dumps(case)], capture_output=True, text=True)
        mode = "compiled" if compiled else "eager"
        if run.returncode:
            print(f"| {stage} | {precision} | {mode} | failed: {run.stderr.strip().splitlines()[-1]} | | | |")
            continue
        figures = json.loads(run.stdout.splitlines()[-1])
        speed = figures["images_per_second"]
        ratio = speed / base.setdefault(stage, speed)
        print(
            f"| {stage} | {precision} | {mode} | {speed:.1f} | {ratio:.2f} | {figures['waiting']:.1%} "
            f"| {figures['peak_mib']:.0f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
