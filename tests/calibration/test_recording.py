"""The recording: real tensors of the chain, resumed after an interruption, never reused for other data."""

import json
from dataclasses import replace

import numpy as np
import pytest

from showface.calibration.recording import Recording, check_recording, record
from showface.calibration.samples import choose_samples
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.faces.tensors import prepare


def test_holds_what_the_chain_computes(recorded, narrow_bundle):
    chain = open_chain(open_bundle(narrow_bundle), "cpu", 1)
    faces = list(recorded)
    assert len(faces) == 9
    face = faces[5]
    image, mask = prepare(face.face.rgb, face.face.hole, 256, face.face.name)
    expected = chain.run({"image": image[None], "mask": mask[None]})
    assert set(face.tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(face.tensors[name], value)
    assert face.face.hole.mean() == pytest.approx(mask.mean())


def test_goes_on_after_an_interruption(tmp_path, recorded, narrow_bundle, samples, caplog):
    bundle = open_bundle(narrow_bundle)
    caplog.set_level("INFO", "showface")
    for path in sorted(recorded.folder.iterdir())[:2]:  # the index and the first shard
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "shard-0000.npz"
    before = shard.stat().st_mtime_ns
    resumed = record(tmp_path, bundle, samples.calibration, samples.digest(), 1)
    assert shard.stat().st_mtime_ns == before
    assert any("1 of 3 shards were recorded before" in text for text in caplog.messages)
    for ours, theirs in zip(resumed, recorded, strict=True):
        np.testing.assert_array_equal(ours.tensors["completed_image"], theirs.tensors["completed_image"])


def test_other_data_is_recorded_anew(tmp_path, recorded, narrow_bundle, samples, caplog):
    for path in recorded.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    caplog.set_level("INFO", "showface")
    before = (tmp_path / "shard-0000.npz").stat().st_mtime_ns
    record(tmp_path, open_bundle(narrow_bundle), samples.calibration, "another digest", 1)
    assert (tmp_path / "shard-0000.npz").stat().st_mtime_ns > before
    assert any("differs (data); recording anew" in text for text in caplog.messages)
    assert json.loads((tmp_path / "recording.json").read_text())["data"] == "another digest"


def test_empty_masks_are_refused_and_faceless_pictures_named(recorded, caplog):
    class Empty(Recording):
        def __iter__(self):
            for face in recorded:
                labels = np.zeros_like(face.tensors["semantic_map"])  # background
                blank = replace(face.face, hole=np.zeros_like(face.face.hole))
                yield replace(face, face=blank, tensors={**face.tensors, "semantic_map": labels})

    with pytest.raises(UsageError, match="all masks are empty; white must be the hole"):
        check_recording(Empty(recorded.folder, recorded.pairs))

    class Faceless(Recording):
        def __iter__(self):
            for face in recorded:
                yield replace(face, tensors={**face.tensors, "semantic_map": np.zeros((1, 256, 256), np.int32)})

    check_recording(Faceless(recorded.folder, recorded.pairs))
    assert all(pair.image.name in caplog.messages[-1] for pair in recorded.pairs)


def test_faces_by_stem_need_masks(folders, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        choose_samples(folders[0], tmp_path / "none", 9, 3)
