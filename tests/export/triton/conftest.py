"""A Triton server of its own: PyPI's ``nvidia-pytriton`` holds one that runs Python models.

It needs numpy < 2, hence a virtual environment of its own, whose folder ``SHOWFACE_TRITON`` names:

    python3 -m venv triton && triton/bin/pip install nvidia-pytriton onnxruntime opencv-python-headless pillow 'numpy<2'
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import showface.runtime
from showface.runtime import Inpainter

FOLDER = os.environ.get("SHOWFACE_TRITON", "")
START_SECONDS = 300  # on a machine that other tests keep busy
# What stands in for Triton's backend onnxruntime: the same graphs in the same library.
MODEL = """
import json
import os

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.inputs, self.outputs = ([entry["name"] for entry in config[kind]] for kind in ("input", "output"))
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        import numpy as np
        taken = [{n: pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs} for r in requests]
        sizes = [len(tensors[self.inputs[0]]) for tensors in taken]
        results = self.session.run(self.outputs, {n: np.concatenate([t[n] for t in taken]) for n in self.inputs})
        parts = [np.split(result, np.cumsum(sizes)[:-1]) for result in results]
        named = [[pb_utils.Tensor(n, part[i]) for n, part in zip(self.outputs, parts)] for i in range(len(requests))]
        return [pb_utils.InferenceResponse(tensors) for tensors in named]
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def in_python(repository):
    """Let every model of a repository run in the Python backend."""
    for path in repository.glob("*/config.pbtxt"):
        text = path.read_text()
        if 'backend: "onnxruntime"' in text:
            text = re.sub(r"^default_model_filename: .*\n", "", text, flags=re.MULTILINE)
            path.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'))
            (path.parent / "1" / "model.py").write_text(MODEL)
    return repository


@pytest.fixture(scope="session")
def with_python_models():
    """Return a function that lets every model of a repository run in the Python backend."""
    return in_python


@pytest.fixture(scope="session")
def triton_home(tmp_path_factory):
    """Return a folder with the backends and with the runtime that the Python models import."""
    if not FOLDER:
        pytest.skip("SHOWFACE_TRITON names no virtual environment with nvidia-pytriton")
    found = list(Path(FOLDER).glob("lib/python3.*/site-packages/pytriton/tritonserver"))
    if not found:
        pytest.skip(f"SHOWFACE_TRITON={FOLDER} holds no nvidia-pytriton")
    home, (server,) = tmp_path_factory.mktemp("triton"), found
    shutil.copytree(server / "backends", home / "backends")
    version = server.parents[2].name.removeprefix("python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, home / "backends" / "python")
    # Python models run isolated: what they import lies in the environment or beside the backend.
    (home / "backends" / "python" / "showface").mkdir()
    (home / "backends" / "python" / "showface" / "runtime").symlink_to(next(iter(showface.runtime.__path__)))
    (home / "server").symlink_to(server)
    return home


class Triton:
    """A running server, with clients of both protocols."""

    def __init__(self, home, repository, log, *arguments):
        from tritonclient import grpc, http

        self.log = log
        http_port, grpc_port = free_ports(2)
        libraries = (home / "server").resolve().parents[1] / "nvidia_pytriton.libs"
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "PATH": os.pathsep.join([str(Path(FOLDER) / "bin"), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
        }
        command = [home / "server" / "bin" / "tritonserver", "--model-repository", repository]
        command += ["--backend-directory", home / "backends", "--allow-metrics", "false"]
        for protocol, port in (("http", http_port), ("grpc", grpc_port)):
            command += [f"--{protocol}-address", "127.0.0.1", f"--{protocol}-port", str(port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*map(str, command), *arguments], stdout=output, stderr=output, env=environment, start_new_session=True
            )
        self.http = http.InferenceServerClient(f"127.0.0.1:{http_port}", network_timeout=300, connection_timeout=300)
        self.grpc = grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        self.urls = {"http": f"127.0.0.1:{http_port}", "grpc": f"127.0.0.1:{grpc_port}"}

    def wait(self, answer):
        """Wait until ``answer`` is true."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if answer():
                    return
            except Exception:  # nobody listens yet
                pass
            time.sleep(0.5)
        pytest.fail(self.log.read_text()[-3000:])

    def close(self):
        self.http.close()
        self.grpc.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(300)


@pytest.fixture(scope="session")
def start_triton(triton_home, tmp_path_factory):
    """Return a function that runs a server on a repository, in a ``with``."""

    @contextmanager
    def start(repository, *arguments):
        server = Triton(triton_home, repository, tmp_path_factory.mktemp("log") / "triton.log", *arguments)
        try:
            yield server
        finally:
            server.close()

    return start


@pytest.fixture(scope="session")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 1)


@pytest.fixture(scope="session")
def ask():
    """Return a function that asks a model over ``http`` or ``grpc`` and returns its outputs by name."""

    def infer(server, protocol, model, inputs, outputs):
        import importlib

        module, client = importlib.import_module(f"tritonclient.{protocol}"), getattr(server, protocol)
        types = {np.dtype("float32"): "FP32", np.dtype("uint8"): "UINT8", np.dtype("bool"): "BOOL"}
        sent = []
        for name, value in inputs.items():
            tensor = module.InferInput(name, list(value.shape), types[value.dtype])
            tensor.set_data_from_numpy(np.ascontiguousarray(value))
            sent.append(tensor)
        result = client.infer(model, sent, outputs=[module.InferRequestedOutput(name) for name in outputs])
        return {name: result.as_numpy(name) for name in outputs}

    return infer
