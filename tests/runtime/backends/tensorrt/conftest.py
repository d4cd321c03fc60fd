"""A rig of the device chain without a GPU: a bundle with fake engines on a fake CUDA."""

import functools
import hashlib
import json

import numpy as np
import pytest
from fakes.cuda import FakeCuda
from fakes.tensorrt import FakeEngine, MarkedEngine
from fakes.tensorrt_library import fake_library

from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.onnxruntime import open_session
from showface.runtime.backends.tensorrt.loader import OpenOptions, open_folder
from showface.runtime.backends.tensorrt.sidecar import SIDECAR_SCHEMA, EngineFolder, Sidecar, platform_here, profiles_of
from showface.runtime.bundle import open_bundle
from showface.runtime.stages import TENSORS


class Rig:
    """A bundle with fake engines, and the library that deserialises them."""

    version = "1.7.1.116"

    def __init__(self, folder, cuda, batches=(1, 2, 4), compute=None, backend="tensorrt-rtx", profiles=1):
        self.profiles = profiles
        self.bundle, self.cuda, self.batches, self.backend = open_bundle(folder), cuda, batches, backend
        self.folder = EngineFolder(self.bundle, backend, "sm_86")
        self.device = CudaDevice(0, "Fake GPU", "sm_86")
        self.engines, self.debug_engines, self.deserialised = {}, [], []
        self.folder.path.mkdir(parents=True)
        for stage in self.bundle.manifest.graphs:
            run = compute or open_session(self.bundle.model(stage), stage, None, 1).run
            self.engines[stage.name] = FakeEngine(cuda, stage, self.bundle, batches, run, backend=backend)
            self.engines[stage.name].profiles = profiles_of(batches, profiles)
            data = f"engine of {stage.name}".encode()
            self.folder.engine(stage.name).write_bytes(data)
            self.folder.sidecar(stage.name).write_text(self.sidecar(stage, data).to_json())

    def sidecar(self, stage, data):
        manifest = self.bundle.manifest
        return Sidecar(
            schema_version=SIDECAR_SCHEMA, stage=stage.name, backend=self.backend, tensorrt_version=self.version,
            target="sm_86", gpu="" if self.backend == "tensorrt-rtx" else "Fake GPU", version_compatible=False,
            user_allocation=True, platform=platform_here(), batches=self.batches, profiles=self.profiles,
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

    def find_engine(self, data):
        self.deserialised.append(data)
        if data.startswith(b"engine of "):
            return self.engines.get(data.decode().removeprefix("engine of "))
        return self.debug_engine(data)

    @functools.cached_property
    def trt(self):
        """The library that deserialises the engines."""
        return fake_library(self.version, self.cuda, self.find_engine, self.backend)

    def open(self, **options):
        """Return the chain, which keeps no kernels unless it is told to."""
        return open_folder(
            self.folder, self.trt, self.cuda, self.device, OpenOptions(**{"kernel_cache": False, **options})
        )


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


@pytest.fixture(autouse=True)
def cache_home(monkeypatch, tmp_path):
    """Keep what is written to the user's cache folder in the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick_rig(make_rig, zeros):
    """A rig whose engines only copy the image; the mask decides nothing."""
    return quick(make_rig(compute=lambda inputs: {}), zeros)


@pytest.fixture
def quick_enterprise_rig(make_rig, zeros):
    """The same for TensorRT, which has no runtime configuration."""
    return quick(make_rig(compute=lambda inputs: {}, backend="tensorrt"), zeros)


@pytest.fixture
def make_quick(zeros):
    """Return a function that lets the engines of a rig only copy the image."""
    return lambda rig: quick(rig, zeros)


def quick(rig, zeros):
    blank = zeros(rig.bundle.manifest)
    for name, engine in rig.engines.items():
        wanted = engine.stage.outputs

        def compute(inputs, wanted=wanted, name=name):
            outputs = {k: v for k, v in blank(inputs).items() if k in wanted}
            if name == "coarse":
                outputs["coarse_image"] = inputs["image"] * 0.5
            if name == "refiner":
                outputs["completed_image"] = inputs["coarse_image"] + inputs["mask"]
            return outputs

        engine.compute = compute
    return rig


@pytest.fixture(scope="session")
def batch_of(chain_inputs):
    """Return a function that makes a batch of differing faces, and one that says what quick engines make of it."""

    def make(count):
        chosen = [i % len(chain_inputs[0]) for i in range(count)]
        brightness = np.linspace(1, 0.5, count, dtype=np.float32)[:, None, None, None]
        return chain_inputs[0][chosen] * brightness, chain_inputs[1][chosen]

    return make


@pytest.fixture(scope="session")
def expected():
    """Return what the quick engines make of a batch."""
    return lambda image, mask: image * np.float32(0.5) + mask


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
