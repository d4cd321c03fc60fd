"""The first run on a GPU as a command: over the fake it passes, and without a GPU it says what it could not do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from showface.runtime.backends.cuda_devices import cuda_device_count

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def run(out, *arguments):
    command = [sys.executable, SCRIPT, out, "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, json.loads((out / "gpu.json").read_text())["sections"], (out / "gpu.md").read_text()


def test_over_the_fake_the_chain_is_right_and_a_lost_device_ends_it(tmp_path):
    done, sections, text = run(tmp_path, "--fake", "--only", "environment", "chain", "lost-device", "joined")
    assert done.returncode == 0, sections
    assert {section["status"] for section in sections.values()} == {"done"}
    assert sections["chain"]["leaked MiB"] == {"off": 0.0, "capture": 0.0}
    assert "illegal memory access" in sections["lost-device"]["said"]
    assert sections["joined"]["leaked"] == 0.0
    assert "## The device chain on real CUDA" in text


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a device")
def test_without_a_gpu_each_section_says_why_it_did_not_run(tmp_path):
    done, sections, text = run(tmp_path, "--only", "chain", "onnxruntime", "engines", "torch", "choices")
    assert done.returncode == 0, sections
    assert {section["status"] for section in sections.values()} == {"skipped"}
    assert text.count("no CUDA device, or no driver, is found here") == 4
    assert "sees no CUDA device" in sections["torch"]["why"]


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a device")
def test_without_a_gpu_the_joined_graph_is_timed_on_the_cpu(tmp_path, narrow_bundle):
    done, sections, text = run(tmp_path, "--only", "joined", "--bundle", narrow_bundle)
    assert done.returncode == 0, sections
    assert [row["batch"] for row in sections["joined"]["latency"]] == [1]
    assert all(row["five / one"] > 0 for row in sections["joined"]["latency"])
    assert "| five / one |" in text


def test_a_section_that_fails_is_told_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['cupy_engines'] = None")
    done, sections, _ = run(tmp_path / "out", "--fake", "--only", "environment", "chain")
    assert done.returncode == 1
    assert sections["environment"]["status"] == "done"
    assert sections["chain"]["status"] == "failed"
    assert "cupy_engines" in sections["chain"]["why"]
