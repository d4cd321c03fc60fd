"""A server against the folder run and the bare chain, interleaved; its memory; and what it does with too many clients.

python benchmarks/server.py throughput [--faces 24] [--rounds 3] [--clients 8] [--threads 2] [--bundle DIR]
python benchmarks/server.py latency [--faces 24] ...
python benchmarks/server.py memory [--faces 2000] ...
python benchmarks/server.py flood [--clients 200] ...
python benchmarks/server.py start ...
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from folder import make_folder

from showface.runtime import Inpainter
from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.run import complete_folder
from showface.runtime.faces.masks import MaskSource
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import read_photo


@contextmanager
def server(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Run a server; give its address and the number of its process."""
    command = [sys.executable, "-m", "showface.cli", "--threads", str(given.threads), "serve", "--port", "0"]
    command += ["--device", "cpu", *(["--bundle", str(given.bundle)] if given.bundle else [])]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        for line in running.stderr:
            found = re.search(r"serving on (\S+)/;", line)
            if found:
                yield found[1], running.pid
                break
    finally:
        running.terminate()
        running.wait()


def memory(pid: int) -> float:
    """Return the resident MiB of a process and its decoders."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    texts = [Path(f"/proc/{one}/status").read_text() for one in (pid, *children)]
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1024  # type: ignore[index]


def send(url: str, forms: list[dict[str, bytes]], clients: int) -> Counter[int]:
    """Send the forms by ``clients`` at once; return how many were answered with which status."""

    def ask(form: dict[str, bytes]) -> int:
        return client.post("/inpaint", files={name: (name, data) for name, data in form.items()}).status_code

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    with httpx.Client(base_url=url, timeout=600, limits=limits) as client, ThreadPoolExecutor(clients) as pool:
        return Counter(pool.map(ask, forms))


def throughput(given: argparse.Namespace, root: Path, images: Path, mask: Path, forms: list[dict[str, bytes]]) -> None:
    """Print faces/s of folder runs and of the server, one after the other, and the ratio of each pair."""
    inpainter = Inpainter.from_bundle(given.bundle, "cpu", given.threads)
    options, ratios = Options(MaskSource("file", mask), batch_size=inpainter.default_batch_size), []
    with server(given) as (url, _):
        for k in range(given.rounds):
            output = root / f"out-{k}"
            items = plan_items(images, output, mask)
            started = time.perf_counter()
            results = list(complete_folder(items, inpainter, options, output / "results.jsonl"))
            folder = len(results) / (time.perf_counter() - started)
            started = time.perf_counter()
            statuses = send(url, forms, given.clients)
            served = len(forms) / (time.perf_counter() - started)
            assert set(statuses) == {200}, statuses
            ratios.append(served / folder)
            print(f"folder {folder:.3f} faces/s, server {served:.3f} faces/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


def latency(given: argparse.Namespace, images: Path, mask: Path, forms: list[dict[str, bytes]]) -> None:
    """Print the median times of one chain and of one request, taken in turn, and their ratio."""
    inpainter = Inpainter.from_bundle(given.bundle, "cpu", given.threads)
    hole, chain, request = read_photo(mask).pixels > 0, list[float](), list[float]()
    with server(given) as (url, _), httpx.Client(base_url=url, timeout=600) as client:
        for path, form in zip(sorted(images.iterdir()), forms, strict=True):
            image, known = prepare(read_photo(path).pixels, hole, inpainter.image_size, path.name)
            started = time.perf_counter()
            inpainter.run(image[None], known[None])
            chain.append(time.perf_counter() - started)
            started = time.perf_counter()
            client.post("/inpaint", files={name: (name, data) for name, data in form.items()}).raise_for_status()
            request.append(time.perf_counter() - started)
    medians = statistics.median(chain), statistics.median(request)
    print(f"chain {medians[0] * 1e3:.1f} ms, request {medians[1] * 1e3:.1f} ms, ratio {medians[1] / medians[0]:.3f}")


def growth(given: argparse.Namespace, forms: list[dict[str, bytes]]) -> None:
    """Print the server's memory after the first tenth of the requests and after all."""
    with server(given) as (url, pid):
        first = len(forms) // 10
        statuses = send(url, forms[:first], 4)
        before = memory(pid)
        statuses += send(url, forms[first:], 4)
        after = memory(pid)
    print(f"{dict(statuses)}; after {first}: {before:.0f} MiB, after all: {after:.0f} MiB, ratio {after / before:.3f}")


def flood(given: argparse.Namespace, forms: list[dict[str, bytes]]) -> None:
    """Send everything at once; print the statuses and the memory before and after."""
    with server(given) as (url, pid):
        send(url, forms[:4], 1)
        before = memory(pid)
        statuses = send(url, forms, len(forms))
        after = memory(pid)
    print(f"{len(forms)} at once: {dict(statuses)}; {before:.0f} MiB before, {after:.0f} MiB after")


def start(given: argparse.Namespace, forms: list[dict[str, bytes]]) -> None:
    """Print the time from the start of the process to the first picture."""
    started = time.perf_counter()
    with server(given) as (url, pid):
        ready = time.perf_counter() - started
        assert send(url, forms[:1], 1) == {200: 1}
        seconds = time.perf_counter() - started
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = (int(ticks[11]) + int(ticks[12])) / 100
    print(f"ready after {ready:.2f} s, first reply after {seconds:.2f} s; {used:.2f} s of processor time")


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "latency", "memory", "flood", "start"))
    parser.add_argument("--faces", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bundle", type=Path, default=None)
    given = parser.parse_args()
    count = given.faces or {"memory": 2000, "flood": given.clients or 200}.get(given.what, 24)
    given.clients = given.clients or 8
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images, mask = make_folder(root, count)
        hole = mask.read_bytes()
        forms = [{"image": path.read_bytes(), "mask": hole} for path in sorted(images.iterdir())]
        if given.what == "throughput":
            throughput(given, root, images, mask, forms)
        elif given.what == "latency":
            latency(given, images, mask, forms)
        else:
            {"memory": growth, "flood": flood, "start": start}[given.what](given, forms)


if __name__ == "__main__":
    main()
