"""Throughput of a folder run against the bare chain, interleaved, and the peak memory of runs of several lengths.

python benchmarks/folder.py throughput [--faces 24] [--rounds 5] [--threads 2]
python benchmarks/folder.py memory [--faces 100 1000 5000] [--bundle DIR]
python benchmarks/folder.py large [--bundle DIR] [--face-detector FILE]
python benchmarks/folder.py cluster [--faces 500] [--rounds 1] [--bundle DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from showface.runtime import Inpainter
from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.run import complete_folder
from showface.runtime.faces.align import TEMPLATE
from showface.runtime.faces.masks import MaskSource
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import encode_photo, read_photo

EXAMPLES = Path(__file__).parents[1] / "examples" / "faces"
DIFFERENT = 24  # pictures; more are links to these
PHOTOGRAPH = 4000, 3000


def make_folder(root: Path, count: int, side: int = 256) -> tuple[Path, Path]:
    """Write ``count`` example faces of ``side``², shifted so that they differ, and one mask of a fifth of them."""
    images = root / "in"
    images.mkdir()
    sources = [read_photo(path).pixels[..., :3] for path in sorted(EXAMPLES.iterdir())]
    for k in range(count):
        path = images / f"{k:06d}.jpg"
        if k >= DIFFERENT:
            os.link(images / f"{k % DIFFERENT:06d}.jpg", path)
            continue
        face = cv2.resize(sources[k % len(sources)], (side, side), interpolation=cv2.INTER_AREA)
        path.write_bytes(encode_photo(np.roll(face, k, axis=1), ".jpg", lossy=True))
    mask = np.zeros((side, side), np.uint8)
    mask[side // 3 : side * 3 // 4, side // 4 : side * 3 // 4] = 255
    (root / "mask.png").write_bytes(encode_photo(mask, ".png", lossy=False))
    return images, root / "mask.png"


def make_photographs(root: Path, count: int) -> tuple[Path, Path]:
    """Write ``count`` pictures of 4000×3000 pixels, a face of 3000² with a hole in each, and their landmarks."""
    images, mask = make_folder(root, count, PHOTOGRAPH[1])
    left = (PHOTOGRAPH[0] - PHOTOGRAPH[1]) // 2
    rows = []
    for path in sorted(images.iterdir())[:DIFFERENT]:
        wide = cv2.copyMakeBorder(read_photo(path).pixels, 0, 0, left, left, cv2.BORDER_REFLECT)
        path.write_bytes(encode_photo(wide, ".jpg", lossy=True))  # in place: its links see it too
    wide = cv2.copyMakeBorder(read_photo(mask).pixels, 0, 0, left, left, cv2.BORDER_CONSTANT)
    mask.write_bytes(encode_photo(wide, ".png", lossy=False))
    points = TEMPLATE * PHOTOGRAPH[1] + (left, 0)
    for path in sorted(images.iterdir()):
        rows.append(",".join([path.name, *(f"{value:.1f}" for value in points.reshape(-1))]))
    (root / "faces.csv").write_text("\n".join(rows) + "\n")
    return images, mask


def throughput(count: int, rounds: int, threads: int, bundle: Path | None) -> None:
    """Print images/s of the chain alone and of whole runs, one after the other, and the ratio of each pair."""
    inpainter = Inpainter.from_bundle(bundle, "cpu", threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images, mask = make_folder(root, count)
        hole = read_photo(mask).pixels > 0
        prepared = [prepare(read_photo(p).pixels, hole, inpainter.image_size, p.name) for p in sorted(images.iterdir())]
        options = Options(MaskSource("file", mask), batch_size=inpainter.default_batch_size)
        ratios = []
        for k in range(rounds):
            started = time.perf_counter()
            for image, known in prepared:
                inpainter.run(image[None], known[None])
            bare = count / (time.perf_counter() - started)
            output = root / f"out-{k}"
            started = time.perf_counter()
            results = list(
                complete_folder(plan_items(images, output, mask), inpainter, options, output / "results.jsonl")
            )
            whole = count / (time.perf_counter() - started)
            assert all(result.status == "done" for result in results)
            ratios.append(whole / bare)
            print(f"chain {bare:.3f} images/s, folder {whole:.3f} images/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


def run(root: Path, images: Path, mask: Path, bundle: Path | None, *options: str | Path, output: str = "out") -> str:
    """Complete a folder in a process of its own; return its peak memory and speed."""
    command = [sys.executable, "-m", "showface.cli", "inpaint", images, root / output, "--masks", mask]
    command += ["--device", "cpu", *(["--bundle", bundle] if bundle else []), *options]
    started = time.perf_counter()
    process, peak = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL), 0.0
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0
    seconds = time.perf_counter() - started
    return f"peak {peak:.0f} MiB, {seconds:.1f} s"


def peak_memory(pid: int) -> float:
    """Return the largest resident set so far of a process without its children, in MiB; 0 where it has ended.

    Not that of ``getrusage``, which counts from what the process that started it had at that moment.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def cluster(count: int, rounds: int, bundle: Path | None) -> None:
    """Print seconds of whole runs without and with a local Ray, in turn, and what Ray takes more."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images, mask = make_folder(root, count)
        for k in range(rounds):
            seconds = {}
            for name, options in [("folder", ()), ("cluster", ("--cluster", "local"))][:: -1 if k % 2 else 1]:
                started = time.perf_counter()
                print(f"{name}: {run(root, images, mask, bundle, *options, output=f'{name}-{k}')}", flush=True)
                seconds[name] = time.perf_counter() - started
            ratios.append(seconds["cluster"] / seconds["folder"])
    print(f"cluster: {statistics.median(ratios):.3f} × the time of the folder run")


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "memory", "large", "cluster"))
    parser.add_argument("--faces", type=int, nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--face-detector", type=Path, default=None, help="find the faces, do not read landmarks")
    given = parser.parse_args()
    if given.what == "throughput":
        throughput((given.faces or [24])[0], given.rounds, given.threads, given.bundle)
        return
    if given.what == "cluster":
        cluster((given.faces or [500])[0], given.rounds, given.bundle)
        return
    for count in given.faces or ([100, 1000, 5000] if given.what == "memory" else [8]):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            if given.what == "memory":
                print(f"{count} files: {run(root, *make_folder(root, count), given.bundle)}", flush=True)
                continue
            images, mask = make_photographs(root, count)
            found = ("--landmarks", root / "faces.csv")
            if given.face_detector is not None:
                found = ("--face-detector", given.face_detector)
            peak = run(root, images, mask, given.bundle, "--align", *found)
            print(f"{count} photographs: {peak}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            print(f"{count} squares: {run(root, *make_folder(root, count, 3464), given.bundle)}", flush=True)


if __name__ == "__main__":
    main()
