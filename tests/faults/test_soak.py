"""A long run in constant memory: the process may not grow once it is under way.

``SHOWFACE_SOAK=5000 python -m pytest tests/faults/test_soak.py -s`` runs the long one, and prints what it measured.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILES = int(os.environ.get("SHOWFACE_SOAK", "240"))
GROWTH = 4  # MiB that a run may grow by after its first third
BROKEN_EVERY = 40


def resident(process):
    """Return the resident memory of a process in MiB; 0 once it has ended."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_memory_is_constant(tmp_path, faces, narrow_bundle):
    images = tmp_path / "in"
    images.mkdir()
    for k in range(FILES):
        if k % BROKEN_EVERY == BROKEN_EVERY - 1:
            (images / f"{k:06d}.png").write_bytes(b"broken")
        elif k < 24:
            Image.fromarray(np.roll(faces[k % 3][0], k, axis=1)).save(images / f"{k:06d}.jpg")
        else:
            os.link(images / f"{k % 24:06d}.jpg", images / f"{k:06d}.jpg")
    Image.fromarray(faces[0][1].astype(np.uint8) * 255).save(tmp_path / "mask.png")
    options = ["--masks", tmp_path / "mask.png", "--bundle", narrow_bundle, "--device", "cpu", "--batch-size", "2"]
    # One batch at a time: when two first need all their memory at the same moment is chance, and may be late in a run.
    call = ["--threads", "1", "inpaint", images, tmp_path / "out", *options, "--workers", "1"]
    command = [sys.executable, "-m", "showface.cli", *call]
    seen, log = [], tmp_path / "out" / "results.jsonl"
    # One arena: how many the C library opens for threads, and when, is chance, and each keeps what it once had.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            seen.append((log.stat().st_size if log.exists() else 0, resident(process)))
            time.sleep(0.05)
    assert process.returncode == 1  # some are broken
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == FILES
    assert sum(line["status"] == "failed" for line in lines) == FILES // BROKEN_EVERY
    third = log.stat().st_size / 3
    early = max(memory for size, memory in seen if size <= third)
    late = max(memory for size, memory in seen if size > third)
    print(f"{FILES} files: {early:.0f} MiB in the first third, {late:.0f} MiB after it")
    assert late < early + GROWTH
