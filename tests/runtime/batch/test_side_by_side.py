"""Faces side by side on a CPU: every input once, and the same bytes as one after the other."""

import shutil

import pytest

from showface.runtime.batch import options as module
from showface.runtime.batch.options import Options, side_by_side
from showface.runtime.batch.start import Model, plan_run
from showface.runtime.faces.masks import MaskSource


@pytest.mark.parametrize(
    ("threads", "faces", "memory", "expected"),
    [
        (2, 100, 2**40, 2),
        (64, 100, 2**40, 64),
        (64, 3, 2**40, 3),
        (64, 100, 4 * 2**30, 8),
        (8, 100, 0, 1),
        (1, 9, 2**40, 1),
    ],
)
def test_one_thread_a_face_as_far_as_faces_and_memory_go(threads, faces, memory, expected, monkeypatch):
    monkeypatch.setattr(module, "_available_memory", lambda: memory)
    assert side_by_side(threads, faces) == expected


@pytest.mark.parametrize(("threads", "together", "said"), [(2, 2, "2 faces side by side"), (4, 0, "4 faces side")])
def test_side_by_side_gives_the_same_bytes(threads, together, said, narrow_bundle, face_folder, tmp_path, caplog):
    images, masks = face_folder
    for k in range(6):  # more than there are threads
        shutil.copy(images / "a.png", images / f"copy{k}.png")
        shutil.copy(masks / "a.png", masks / f"copy{k}.png")
    caplog.set_level("INFO", "showface")
    outputs = {}
    for name, count in (("single", 1), ("several", together)):
        output = tmp_path / name
        run = plan_run(images, output, Options(MaskSource("file", masks), 0), None, None)
        model = Model(narrow_bundle, device="cpu", threads=threads, side_by_side=count)
        results = list(run.start(model, lambda: False))
        assert sorted(result.input for result in results) == sorted(path.name for path in images.iterdir())
        assert {result.status for result in results} == {"done"}
        outputs[name] = {path.name: path.read_bytes() for path in output.iterdir() if path.suffix != ".jsonl"}
    assert outputs["single"] == outputs["several"]
    assert said in caplog.text
