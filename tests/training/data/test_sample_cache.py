"""Samples made once: what lies in the arrays, that a stopped run goes on, and which ones are refused."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from showface.runtime.errors import UsageError
from showface.training.checkpoint import network_digest
from showface.training.config import AugmentConfig, PhaseConfig
from showface.training.data.sample_cache import ARRAYS, RECORD_FILE, Record, create_arrays, open_samples, read_record
from showface.training.process import make_fabric
from showface.training.run.loop import Trainer, train
from showface.training.tasks.refinement import MdrnetTask

FABRIC = make_fabric("cpu", 1, "fp32")
INIT = ("../coarse/coarse.safetensors", "../parser/parser.safetensors")
SIZE = 64


@pytest.fixture(scope="module")
def made(data, stages, config):
    """The config and the folder of eight samples."""
    run = config(init=INIT, phases={"full": PhaseConfig(4, 2, SIZE)}, checkpoint_every=1)
    train("samples", run, data, stages / "samples", False, FABRIC)
    return run, stages / "samples"


def digests_of(run, data, folder):
    task = MdrnetTask(replace(run, phases={}), data, folder)
    return task.model, {name: network_digest(task.model, name) for name in ("coarse", "parser")}


def test_arrays_hold_what_the_frozen_networks_give(made, data, stages):
    run, folder = made
    model, digests = digests_of(run, data, folder)
    assert read_record(folder) == Record(8, 8, SIZE, digests)
    arrays = {name: np.load(folder / f"{name}.npy") for name in ARRAYS}
    image = torch.from_numpy(arrays["image"]).float() / 127.5 - 1
    mask = torch.from_numpy(arrays["mask"]).float()[:, None]
    with torch.no_grad():
        coarse = model.coarse.eval()(image, mask)
        labels = model.parser.eval()(coarse).argmax(dim=1)
    stored = torch.from_numpy(arrays["coarse_image"]).float() / 127.5 - 1
    assert (stored - coarse).abs().max() < 0.03  # both are rounded, the image before it is completed
    assert (torch.from_numpy(arrays["semantic_map"]).long() == labels).float().mean() > 0.9
    assert set(np.unique(arrays["mask"])) == {0, 1}
    assert arrays["photograph"].all()


def test_samples_are_made_in_the_precision_of_the_config(made, data, stages):
    run, folder = made
    half = stages / "samples-bf16"
    train("samples", replace(run, precision="bf16"), data, half, False, make_fabric("cpu", 1, "bf16"))
    exact, rounded = (np.load(f / "coarse_image.npy").astype(int) for f in (folder, half))
    assert 0 < np.abs(exact - rounded).max() < 26  # of 255
    assert np.abs(exact - rounded).mean() < 1
    np.testing.assert_array_equal(np.load(half / "image.npy"), np.load(folder / "image.npy"))


def test_a_stopped_run_goes_on_where_it_was(made, data, stages, config):
    run, folder = made
    part = stages / "samples-part"
    train("samples", run, data, part, False, FABRIC)
    record = read_record(part)
    for name in ARRAYS:
        array = np.load(part / f"{name}.npy", mmap_mode="r+")
        array[4:] = 0
    Record(4, 8, SIZE, record.digests).write(part)
    with pytest.raises(UsageError, match="4 of 8 samples are there; resume their run"):
        open_samples(run, part, record.digests, torch.device("cpu"), 0, 1)
    with pytest.raises(UsageError, match="holds samples already; resume the run"):
        train("samples", run, data, part, False, FABRIC)
    train("samples", run, data, part, True, FABRIC)
    for name in ARRAYS:
        np.testing.assert_array_equal(np.load(part / f"{name}.npy"), np.load(folder / f"{name}.npy"), err_msg=name)


def test_training_on_samples_is_training_on_their_faces(made, data, stages, config):
    _, folder = made
    run = config(init=INIT, samples="../samples", augment=AugmentConfig(), oracle_steps=1)
    trainer = Trainer("mdrnet", run, data, stages / "on-samples", FABRIC)
    arrays = {name: np.load(folder / f"{name}.npy") for name in ARRAYS}
    batch = trainer.feed.batch(3, 2)
    for i, name in enumerate(batch.names):
        index = int(name.split()[1])
        np.testing.assert_array_equal(batch.image[i].numpy(), arrays["image"][index])
        np.testing.assert_array_equal(batch.semantic_map[i].numpy(), arrays["semantic_map"][index])
    assert torch.equal(trainer.feed.batch(3, 2).image, batch.image)
    for step in range(2):
        trainer.begin_step()
        terms, _ = trainer.train_step(trainer.feed.batch(step, 2))
    assert torch.isfinite(terms["total"])


@pytest.mark.parametrize(
    ("change", "digest", "message"),
    [
        ({"augment": AugmentConfig(rotate=3.0)}, None, "augment: samples were augmented"),
        ({}, "other", r"made with another coarse than that in 'init'"),
    ],
)
def test_samples_that_do_not_fit(change, digest, message, made, data):
    run, folder = made
    digests = dict(read_record(folder).digests)
    if digest is not None:
        digests["coarse"] = digest
    run = replace(run, augment=AugmentConfig(), **change) if not change else replace(run, **change)
    with pytest.raises(UsageError, match=message):
        open_samples(run, folder, digests, torch.device("cpu"), 0, 1)


def array(header, magic=b"\x93NUMPY\x01\0"):
    return magic + len(header).to_bytes(2, "little") + header


BROKEN = {
    "empty": b"",
    "text": b"no array",
    "a header that does not end": array(b"{'descr': ("),
    "brackets": array(b"(" * 5000),
    "too large a number": array(b"{'descr':'|u1','fortran_order':False,'shape':(%d,)}" % 2**70),
    "objects": array(b"{'descr':'|O','fortran_order':False,'shape':(4,)}"),
    "cut off": array(b"{'descr':'|u1','fortran_order':False,'shape':(4,64,64,3)}"),
    "other samples": array(b"{'descr':'|u1','fortran_order':False,'shape':(4,)}") + bytes(4),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_arrays_that_are_none_are_named(kind, tmp_path):
    name = next(iter(ARRAYS))
    (tmp_path / f"{name}.npy").write_bytes(BROKEN[kind])
    with pytest.raises(UsageError, match=rf"{name}\.npy: (no array of samples|holds other samples).*; remove "):
        create_arrays(tmp_path, 4, SIZE)


def test_an_array_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / f"{next(iter(ARRAYS))}.npy")
    with pytest.raises(UsageError, match="is no regular file"):
        create_arrays(tmp_path, 4, SIZE)


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"count": "x"}'])
def test_a_record_that_is_none(content, tmp_path):
    if content is not None:
        (tmp_path / RECORD_FILE).write_bytes(content)
    with pytest.raises(
        UsageError, match=r"samples\.json: (no|not a) record of samples|samples\.json: cannot be read; make them with"
    ):
        read_record(tmp_path)


def test_samples_are_whole_faces(data, stages, config):
    run = config(init=INIT, phases={"crops": PhaseConfig(1, 2, SIZE, crop=32)})
    with pytest.raises(UsageError, match="leave resize and crop out"):
        train("samples", run, data, stages / "cropped-samples", False, FABRIC)
