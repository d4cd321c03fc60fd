"""Copies of the narrow bundle whose graphs or engines can be changed, and many real builds in one process."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
from fixtures.shared import made_once

from showface.export.engines.build import Built, build_engines
from showface.export.engines.request import BuildOptions
from showface.runtime.backends.tensorrt.library import load_library
from showface.runtime.bundle import open_bundle

# Serves requests one after the other: a process for each of the matrix's engines would take longer than the builds. An
# engine may be built for more targets than its request names, all or none: most of a build is the same for each.
MANY = """
import json, os, sys
os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
from polygraphy.backend import tensorrt_rtx
from showface.export.engines.request import EngineRequest
from showface.export.engines.worker import serve
create, others = tensorrt_rtx.CreateConfigRTX, []
def create_for_all(compute_capabilities, **options):
    more = [divmod(int(name.removeprefix("sm_")), 10) for name in others]
    return create(compute_capabilities=compute_capabilities + more, **options)
tensorrt_rtx.CreateConfigRTX = create_for_all
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
with open(os.devnull, "w") as events:
    for line in sys.stdin:
        request, others[:] = json.loads(line)
        answers.write(json.dumps(serve(EngineRequest.from_json(request), events)) + "\\n")
"""


@pytest.fixture
def bundle_copy(narrow_bundle, tmp_path):
    """Return a function that copies the narrow bundle and writes over some of its graphs."""

    def copy(name="bundle", precision=None, **graphs):
        folder = tmp_path / name
        folder.mkdir()
        for path in narrow_bundle.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((folder / "manifest.json").read_text())
        for stage, data in graphs.items():
            (folder / f"{stage}.onnx").write_bytes(data)
            manifest["sha256"][f"{stage}.onnx"] = hashlib.sha256(data).hexdigest()
            manifest["precision"][stage] = precision or manifest["precision"][stage]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return open_bundle(folder)

    return copy


class Told:
    """:class:`showface.export.engines.process.Progress` that keeps what it is told."""

    def __init__(self):
        self.steps = []

    def advance(self, *step):
        self.steps.append(step)


def quick_options(target="sm_86", **changes):
    return BuildOptions(**{"backend": "tensorrt-rtx", "target": target, "batches": (1, 1, 4), **changes})


@pytest.fixture
def options():
    """Return options of a quick build."""
    return quick_options


@pytest.fixture(scope="session")
def first_build(narrow_bundle, tmp_path_factory):
    """Return the folder of the narrow bundle with engines, the rows of their build, and what was told of progress."""

    def make(folder):
        shutil.copytree(narrow_bundle, folder / "bundle")
        told, version = Told(), load_library("tensorrt-rtx").__version__
        rows = build_engines(open_bundle(folder / "bundle"), quick_options(), version, "", told)
        told = {"rows": [asdict(row) for row in rows], "phases": told.steps}
        (folder / "told.json").write_text(json.dumps(told))

    folder = made_once(tmp_path_factory, "engines", make)
    told = json.loads((folder / "told.json").read_text())
    return folder / "bundle", [Built(**row) for row in told["rows"]], told["phases"]


@pytest.fixture
def built_copy(first_build, tmp_path):
    """Return a copy of the narrow bundle with its engines, which can be changed."""
    return open_bundle(shutil.copytree(first_build[0], tmp_path / "bundle"))


@pytest.fixture(scope="session")
def serve_all():
    """Return a function that serves requests for real and returns their last events.

    Each is built for its target, and for those that ``others`` names beside it.
    """

    def serve(requests, others=None):
        asked = zip(requests, others or [()] * len(requests), strict=True)
        lines = "".join(json.dumps([request.to_json(), more]) + "\n" for request, more in asked)
        done = subprocess.run([sys.executable, "-c", MANY], input=lines, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return serve
