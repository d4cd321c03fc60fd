"""The repository on a real tritonserver, over HTTP and gRPC: its faces are the inpainter's, bit by bit."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showface.export.triton.config import Serving
from showface.export.triton.repository import write_repository
from showface.runtime.bundle import open_bundle
from showface.runtime.faces.masks import hole_from_mask
from showface.runtime.stages import STAGES

EXAMPLE = Path(__file__).parents[3] / "examples" / "triton_client.py"
EVERY = [name for stage in STAGES for name in stage.outputs]


@pytest.fixture(scope="module")
def repository(narrow_bundle, with_python_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "models"
    write_repository(open_bundle(narrow_bundle), folder, Serving(max_batch=4, queue_delay=300_000, photo=True))
    return with_python_models(folder)


@pytest.fixture(scope="module")
def triton(start_triton, repository):
    with start_triton(repository) as server:
        server.wait(server.http.is_server_ready)
        yield server


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_both_ensembles_compute_what_the_chain_does(triton, ask, inpainter, chain_inputs, protocol):
    inputs = dict(zip(("image", "mask"), chain_inputs, strict=True))
    expected = inpainter.chain.run(inputs)
    short = ask(triton, protocol, "showface", inputs, ["completed_image"])
    np.testing.assert_array_equal(short["completed_image"], expected["completed_image"])
    every = ask(triton, protocol, "showface_stages", inputs, EVERY)
    for name in EVERY:
        assert every[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(every[name], expected[name])


def test_an_ensemble_has_no_subset_of_outputs_which_is_why_there_are_two(triton, ask, chain_inputs):
    inputs = {name: value[:1] for name, value in zip(("image", "mask"), chain_inputs, strict=True)}
    with pytest.raises(Exception, match="unexpected deadlock"):
        ask(triton, "http", "showface_stages", inputs, ["semantic_map"])


def test_three_requests_go_through_a_stage_in_one_batch(triton, ask, inpainter, chain_inputs):
    def count():
        (found,) = triton.http.get_inference_statistics("showface_coarse")["model_stats"]
        return {int(entry["batch_size"]): int(entry["compute_infer"]["count"]) for entry in found["batch_stats"]}

    image, mask = chain_inputs
    alone = [{"image": image[i : i + 1], "mask": mask[i : i + 1]} for i in range(3)]
    before = count().get(3, 0)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda inputs: ask(triton, "grpc", "showface", inputs, ["completed_image"]), alone))
    assert count().get(3, 0) == before + 1
    for reply, inputs in zip(replies, alone, strict=True):
        np.testing.assert_array_equal(reply["completed_image"], inpainter.run(**inputs))


def test_the_photo_model_takes_and_returns_pictures(triton, ask, inpainter, faces):
    face, hole = faces[0]
    reply = ask(triton, "http", "showface_photo", {"picture": face, "hole": hole}, ["completed_picture"])
    np.testing.assert_array_equal(reply["completed_picture"], inpainter.complete(face, hole))
    with pytest.raises(Exception, match="200×256 is not square"):
        ask(triton, "http", "showface_photo", {"picture": face[:, :200], "hole": hole[:, :200]}, ["completed_picture"])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_example_client_completes_a_file(triton, inpainter, faces, tmp_path, protocol):
    face, hole = faces[1]
    Image.fromarray(face).save(tmp_path / "face.png")
    Image.fromarray(hole.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    command = [sys.executable, EXAMPLE, "face.png", "mask.png", "done.png", "--protocol", protocol]
    subprocess.run([*command, "--url", triton.urls[protocol]], cwd=tmp_path, check=True, timeout=300)
    done = np.asarray(Image.open(tmp_path / "done.png"))
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    np.testing.assert_array_equal(done, inpainter.complete(face, hole_from_mask(mask, face.shape[:2], "mask")))


BROKEN = {
    "unknown_field": ("coarse", lambda t: t + "\nmax_batch: 4\n"),
    "unknown_type": ("coarse", lambda t: t.replace("TYPE_FP32", "TYPE_FLOAT", 1)),
    "no_such_backend": ("coarse", lambda t: t.replace('backend: "python"', 'backend: "pythonnet"')),
    "another_name": ("coarse", lambda t: t.replace("broken_", "misnamed_")),
    "no_such_model": ("showface", lambda t: t.replace("showface_mrem", "showface_mram")),
    "loose_end": ("showface", lambda t: t.replace('value: "guidance"', 'value: "guidence"', 1)),
    "another_shape": ("showface", lambda t: re.sub(r"dims: 256", "dims: 128", t, count=1)),
    "greater_batch": ("showface", lambda t: t.replace("max_batch_size: 4", "max_batch_size: 64")),
}


def test_broken_configurations_are_refused_by_the_server(start_triton, repository, tmp_path):
    folder = shutil.copytree(repository, tmp_path / "models")
    for name, (source, change) in BROKEN.items():
        origin = "showface" if source == "showface" else f"showface_{source}"
        shutil.copytree(folder / origin, folder / f"broken_{name}")
        text = (folder / origin / "config.pbtxt").read_text().replace(f'name: "{origin}"', f'name: "broken_{name}"', 1)
        (folder / f"broken_{name}" / "config.pbtxt").write_text(change(text))
        assert change(text) != text, name
    with start_triton(folder, "--exit-on-error", "false", "--strict-readiness", "false") as server:
        server.wait(lambda: server.http.is_model_ready("showface"))
        index = {entry["name"]: entry for entry in server.http.get_model_repository_index()}
        log = server.log.read_text()
        for name in BROKEN:
            assert not server.http.is_model_ready(f"broken_{name}"), name
            assert index[f"broken_{name}"].get("state") != "READY", name
            assert f"broken_{name}" in log, name
        assert index["showface"]["state"] == "READY"
