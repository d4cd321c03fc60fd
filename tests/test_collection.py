"""The tests of the runtime can be collected where the runtime is meant to live: without torch and onnx."""

import subprocess
import sys
from pathlib import Path

COLLECT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "lightning", "safetensors"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "onnx") else find(name, *rest)
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests/runtime"]))
"""


def test_the_runtimes_tests_are_collected_without_torch():
    folder = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", COLLECT], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
