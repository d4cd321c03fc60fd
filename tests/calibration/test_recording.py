"""The recording: real tensors of the chain, resumed after an interruption, never reused for other data."""

import io
import json
import os
import zipfile
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


def saved(**changes):
    """Return a shard of one face, with some of its arrays changed; None leaves one out."""
    arrays = {"rgb": np.zeros((1, 256, 256, 3), np.uint8), "hole": np.zeros((1, 256, 256), bool)}
    arrays |= {"image": np.zeros((1, 3, 256, 256), np.float32), "mask": np.zeros((1, 1, 256, 256), np.float32)}
    arrays |= {"completed_image": np.zeros((1, 3, 256, 256), np.float32), **changes}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in arrays.items() if value is not None})
    return buffer.getvalue()


def bomb():
    """Return a small file of 1.1 GiB; it is made in its test, not when tests are collected."""
    buffer = io.BytesIO(saved(rgb=None))
    archive = zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("rgb.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.zeros((1, 20000, 20000, 3), np.uint8))
    return buffer.getvalue()


SHARDS = {
    "empty": b"",
    "text": b"no shard",
    "a zip of nothing": b"PK\5\6" + bytes(18),
    "cut off": saved()[:-40],
    "a flipped bit": saved()[:2000] + b"\1" + saved()[2001:],
    "objects": saved(image=np.array([{}], object)),
    "without a face": saved(rgb=None),
    "other names": saved(more=np.zeros(1)),
    "fewer holes than faces": saved(hole=np.zeros((2, 256, 256), bool)),
    "another type": saved(image=np.zeros((1, 3, 256, 256))),
    "another size": saved(mask=np.zeros((1, 1, 128, 128), np.float32)),
    "no rows": saved(image=np.zeros((0, 3, 256, 256), np.float32)),
    "a bomb": bomb,
}


@pytest.mark.parametrize("kind", SHARDS)
def test_a_shard_that_is_not_what_was_recorded_is_named(tmp_path, recorded, kind):
    shard = SHARDS[kind]
    (tmp_path / "shard-0000.npz").write_bytes(shard() if callable(shard) else shard)
    with pytest.raises(UsageError, match=r"shard-0000\.npz: .*; remove it"):
        list(Recording(tmp_path, recorded.pairs[:1]))


@pytest.mark.parametrize("kind", ["FIFO", "device", "sparse"])
def test_a_shard_that_is_no_file_is_not_waited_for(tmp_path, recorded, kind):
    path = tmp_path / "shard-0000.npz"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(UsageError, match=r"shard-0000\.npz"):
        list(Recording(tmp_path, recorded.pairs[:1]))


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
