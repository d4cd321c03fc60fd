"""The written bundle: readable, listed, labelled, and nothing half-written."""

import json
import shutil

import numpy as np
import pytest

from showface.calibration.bundle import PLAN_FILE, write_int8_bundle
from showface.calibration.planning.plan import INT8, Plan
from showface.calibration.settings import Calibrator, Target
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError

PLAN = Plan(Target.CPU, Calibrator.MINMAX, {"mrem": {"mining.query": INT8}})


def test_every_file_is_listed_and_the_rest_copied(narrow_bundle, graphs, tmp_path):
    source = open_bundle(narrow_bundle)
    written = write_int8_bundle(
        tmp_path / "int8", source, PLAN, {"mrem": graphs["mrem"].SerializeToString()}, {"method": "minmax"}
    )
    assert written.manifest.precision == {**source.manifest.precision, "mrem": "int8"}
    assert written.manifest.calibration == {"method": "minmax"}
    assert written.read(PLAN_FILE).decode() == PLAN.to_toml()
    assert {path.name for path in written.folder.iterdir()} == {"manifest.json", *written.manifest.sha256}
    for stage in source.manifest.stages:
        assert (written.model(stage) == source.model(stage)) == (stage.name != "mrem")
    assert np.array_equal(written.golden()["image"], source.golden()["image"])
    open_chain(written, "cpu", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_an_existing_folder_is_kept(narrow_bundle, graphs, tmp_path):
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8/precious").write_text("mine")
    with pytest.raises(UsageError, match="int8: exists already; remove it or choose another folder"):
        write_int8_bundle(
            tmp_path / "int8", open_bundle(narrow_bundle), PLAN, {"mrem": graphs["mrem"].SerializeToString()}, {}
        )
    assert (tmp_path / "int8/precious").read_text() == "mine"


def test_a_failure_leaves_nothing(narrow_bundle, graphs, tmp_path):
    with pytest.raises(TypeError):
        write_int8_bundle(
            tmp_path / "int8",
            open_bundle(narrow_bundle),
            PLAN,
            {"mrem": graphs["mrem"].SerializeToString()},
            {"x": object()},
        )
    assert not list(tmp_path.iterdir())


def test_a_float_manifest_is_as_older_versions_read_it(narrow_bundle):
    assert "calibration" not in json.loads((narrow_bundle / "manifest.json").read_text())
    assert open_bundle(narrow_bundle).manifest.calibration is None


def test_a_broken_calibration_is_refused(narrow_bundle, tmp_path):
    folder = shutil.copytree(narrow_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "calibration": 3}))
    with pytest.raises(UsageError, match="'calibration' must be an object, not 3"):
        open_bundle(folder)
