"""Plans of TensorRT in a repository: only those that the container can run."""

import hashlib
import shutil

import pytest

from showface.export.triton.config import Serving
from showface.export.triton.repository import write_repository
from showface.runtime.backends.tensorrt.sidecar import SIDECAR_SCHEMA, Sidecar
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError

VERSION = "10.13.3.9"
SERVING = Serving("tensorrt", max_batch=4)


@pytest.fixture
def add_engines(narrow_bundle, tmp_path):
    """Return a function that adds engines, whose bytes nothing here reads, to a copy of the bundle."""
    folder = shutil.copytree(narrow_bundle, tmp_path / "bundle")
    bundle = open_bundle(folder)

    def add(target="sm_86", **changes):
        engines = folder / "engines" / f"tensorrt-{target}"
        engines.mkdir(parents=True)
        for stage in bundle.manifest.stages:
            data = f"engine of {stage.name}".encode()
            fields = {
                "schema_version": SIDECAR_SCHEMA, "stage": stage.name, "backend": "tensorrt",
                "tensorrt_version": VERSION, "target": target, "gpu": "A GPU",
                "version_compatible": False, "batches": (1, 4, 8), "profiles": 1, "dtypes": {},
                "precision": "float32", "products": {}, "tf32": False, "optimization_level": 3, "workspace_mib": None,
                "user_allocation": True, "platform": "linux-x86_64",
                "onnx_sha256": bundle.manifest.sha256[f"{stage.name}.onnx"],
                "engine_sha256": hashlib.sha256(data).hexdigest(), "engine_bytes": len(data), "build_seconds": 1.0,
            }  # fmt: skip
            (engines / f"{stage.name}.engine").write_bytes(data)
            (engines / f"{stage.name}.json").write_text(Sidecar(**{**fields, **changes}).to_json())
        return bundle

    return add


def test_engines_of_the_containers_version_become_plans(add_engines, tmp_path):
    write_repository(add_engines(), tmp_path / "models", SERVING, VERSION)
    for stage in ("coarse", "refiner"):
        folder = tmp_path / "models" / f"showface_{stage}"
        assert (folder / "1" / "model.plan").read_text() == f"engine of {stage}"
        text = (folder / "config.pbtxt").read_text()
        assert 'backend: "tensorrt"' in text
        assert 'default_model_filename: "model.plan"' in text
        assert "kind: KIND_GPU" in text
    assert not list((tmp_path / "models").rglob("*.onnx"))


@pytest.mark.parametrize(
    ("changes", "container", "reason"),
    [
        ({}, None, r"give the one in Triton's container"),
        ({}, "10.14.1.48", r"built by TensorRT 10\.13\.3\.9, the container has 10\.14\.1\.48; build"),
        ({"batches": (1, 2, 2)}, VERSION, r"takes batches of 1 to 2, Triton would send 1 to 4"),
        ({"batches": (2, 2, 8)}, VERSION, r"takes batches of 2 to 8"),
        ({"profiles": 2}, VERSION, r"has 2 profiles, Triton would use the first; build it with one"),
        ({"onnx_sha256": "0" * 64}, VERSION, r"its graph has changed since the build"),
        ({"engine_sha256": "0" * 64}, VERSION, r"its hash differs from its sidecar's"),
    ],
)
def test_engines_that_the_container_cannot_run_are_refused(add_engines, tmp_path, changes, container, reason):
    with pytest.raises(UsageError, match=reason):
        write_repository(add_engines(**changes), tmp_path / "models", SERVING, container)
    assert not list(tmp_path.glob("*models*"))


def test_of_several_targets_one_is_chosen(add_engines, tmp_path):
    add_engines("sm_86")
    bundle = add_engines("sm_89")
    with pytest.raises(UsageError, match="has engines of tensorrt for sm_86, sm_89; choose one of these"):
        write_repository(bundle, tmp_path / "models", SERVING, VERSION)
    write_repository(bundle, tmp_path / "models", SERVING, VERSION, ["sm_89"])
    with pytest.raises(UsageError, match="no engines of tensorrt for sm_75"):
        write_repository(bundle, tmp_path / "others", SERVING, VERSION, ["sm_75"])
