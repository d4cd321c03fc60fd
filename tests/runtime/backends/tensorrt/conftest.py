"""A rig of the device chain without a GPU: a bundle with fake engines on a fake CUDA."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.cuda import FakeCuda
from fakes.tensorrt import DTYPES, FakeEngine, MarkedEngine

from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.backends.tensorrt.sidecar import SIDECAR_SCHEMA, EngineFolder, Sidecar
from showface.runtime.bundle import open_bundle
from showface.runtime.stages import TENSORS


class Rig:
    """A bundle with fake engines, and the library that deserialises them."""

    version = "1.7.1.116"

    def __init__(self, folder, cuda, batches=(1, 2, 4), compute=None):
        self.bundle, self.cuda, self.batches = open_bundle(folder), cuda, batches
        self.folder = EngineFolder(self.bundle, "tensorrt-rtx", "sm_86")
        self.device = CudaDevice(0, "Fake GPU", "sm_86")
        self.engines, self.debug_engines, self.deserialised = {}, [], []
        self.folder.path.mkdir(parents=True)
        for stage in self.bundle.manifest.graphs:
            run = compute or open_session(self.bundle.model(stage), stage, None, 1).run
            self.engines[stage.name] = FakeEngine(cuda, stage, self.bundle, batches, run)
            data = f"engine of {stage.name}".encode()
            self.folder.engine(stage.name).write_bytes(data)
            self.folder.sidecar(stage.name).write_text(self.sidecar(stage, data).to_json())

    def sidecar(self, stage, data):
        manifest = self.bundle.manifest
        return Sidecar(
            schema_version=SIDECAR_SCHEMA, stage=stage.name, backend="tensorrt-rtx", tensorrt_version=self.version,
            target="sm_86", gpu="", version_compatible=False, batches=self.batches,
            dtypes={n: TENSORS[n].dtype for n in (*stage.inputs, *stage.outputs)}, precision="float32",
            products={"float32": 1}, tf32=False, optimization_level=3, workspace_mib=None,
            onnx_sha256=manifest.sha256[f"{stage.name}.onnx"], engine_sha256=hashlib.sha256(data).hexdigest(),
            engine_bytes=len(data), build_seconds=0.1,
        )  # fmt: skip

    def debug_engine(self, data):
        self.debug_engines.append(MarkedEngine(self.cuda, data, self.bundle, self.batches))
        return self.debug_engines[-1]

    def edit_sidecar(self, of, /, **changes):
        path = self.folder.sidecar(of)
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    @property
    def trt(self):
        """The few names of ``tensorrt_rtx`` that are used."""
        rig = self

        class Runtime:
            def __init__(self, logger):
                self.logger = logger

            def deserialize_cuda_engine(self, data):
                rig.deserialised.append(data)
                if data.startswith(b"engine of "):
                    return rig.engines.get(data.decode().removeprefix("engine of "))
                return rig.debug_engine(data)

        class Logger:
            ERROR = 1

            def __init__(self, severity):
                self.severity = severity

        strategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
        dtypes = SimpleNamespace(FLOAT="FLOAT", INT32="INT32")
        kernels = SimpleNamespace(EAGER="EAGER")
        return SimpleNamespace(
            Runtime=Runtime, Logger=Logger, ExecutionContextAllocationStrategy=strategy, DataType=dtypes,
            DynamicShapesKernelSpecializationStrategy=kernels, __version__=self.version, __name__="tensorrt_rtx",
            nptype={value: key for key, value in DTYPES.items()}.get,
        )  # fmt: skip


def copy_of(bundle, folder):
    """Copy a bundle's files, not its engines."""
    folder.mkdir()
    for path in bundle.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def cuda():
    return FakeCuda()


@pytest.fixture
def make_rig(narrow_bundle, tmp_path, cuda):
    """Return a function that makes a :class:`Rig`; the stages compute in ONNX Runtime, or as ``compute`` says."""

    def make(bundle=narrow_bundle, **options):
        return Rig(copy_of(bundle, tmp_path / "rig"), cuda, **options)

    return make


@pytest.fixture(scope="session")
def zeros():
    """Return, for a stage, a compute function that costs nothing."""

    def compute_for(bundle_manifest):
        def compute(inputs):
            batch = len(next(iter(inputs.values())))
            image, channels = bundle_manifest.image_size, bundle_manifest.code_channels
            names = [n for n in TENSORS if n not in ("image", "mask")]
            return {n: np.zeros(TENSORS[n].resolve(batch, image, channels), TENSORS[n].dtype) for n in names}

        return compute

    return compute_for
