"""ONNX Runtime reports nothing to its makers: no file in a fresh home, no look-up of a host, not even from its C++."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "fakes" / "lookups.c"
SCRIPT = """
import os
import socket
import numpy as np
import showface.runtime
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle

open_chain(open_bundle(), "cpu", 1).complete(np.zeros((1, 3, 256, 256), "f4"), np.ones((1, 1, 256, 256), "f4"))
print(os.environ["ORT_DISABLE_TELEMETRY"])
try:
    socket.getaddrinfo("the-last-look-up.invalid", 443)
except OSError:
    pass
"""


def run(home, given, script, **more):
    """Run a script in a process of its own with a fresh home; return what it says of the switch."""
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    if given is not None:
        environment["ORT_DISABLE_TELEMETRY"] = given
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_there_is_no_file_and_no_look_up(tmp_path):
    library, seen, home = tmp_path / "lookups.so", tmp_path / "seen", tmp_path / "home"
    home.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HOOK], check=True)
    assert run(home, None, SCRIPT, LD_PRELOAD=str(library), LOOKUPS=str(seen)) == "1"
    assert seen.read_text().splitlines() == ["look-up the-last-look-up.invalid"]  # the script's own: the hook works
    assert list(home.rglob("*")) == []


def test_what_the_user_has_set_stands(tmp_path):
    script = "import os, showface.runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert [run(tmp_path, given, script) for given in ("0", "", None)] == ["0", "", "1"]
