"""A device that is lost ends the run, with the first cause in the message and nothing left behind."""

import gc
import json
import sys

import pytest

from showface.cli import main
from showface.runtime.backends.tensorrt import loader
from showface.runtime.errors import DeviceLostError
from showface.runtime.inpainter import BatchRunner, Inpainter

CAUSE = "an illegal memory access was encountered"


@pytest.fixture
def unraisable(monkeypatch):
    """Gather what Python would print of errors in finalizers."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda entry: found.append(entry.exc_value))
    return found


def test_the_cause_is_shown_and_everything_is_tried_to_be_given_back(quick_rig, batch_of, unraisable):
    chain = quick_rig.open()
    quick_rig.engines["parser"].kills = True
    with pytest.raises(DeviceLostError, match=CAUSE), chain:
        chain.complete(*batch_of(9))
    assert quick_rig.cuda.leaks() == []
    del chain
    gc.collect()
    assert unraisable == []


def test_the_error_of_the_body_is_not_replaced_by_those_of_the_end(quick_rig):
    def body():
        with quick_rig.open():
            quick_rig.cuda.broken = CAUSE
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert quick_rig.cuda.leaks() == []


def test_a_stage_that_fails_for_a_lost_device_is_named(quick_rig, batch_of):
    with quick_rig.open() as chain:
        record = quick_rig.cuda.record
        quick_rig.engines["coarse"].fails = "cask error"

        def lose(event, stream):  # between the upload and the first engine
            record(event, stream)
            quick_rig.cuda.broken = CAUSE

        quick_rig.cuda.record = lose
        wait = quick_rig.cuda.wait
        quick_rig.cuda.wait = lambda stream, event: None if quick_rig.cuda.broken else wait(stream, event)
        with pytest.raises(DeviceLostError, match=f"stage coarse: TensorRT could not run .*: cask error; .*{CAUSE}"):
            chain.complete(*batch_of(1))


def test_a_run_ends_where_its_device_is_lost(quick_rig, batch_of):
    image, mask = batch_of(6)
    faces = list(zip(image, mask, strict=True))
    chain = quick_rig.open()
    runner = BatchRunner(Inpainter(chain, 256, "digest"), 4)
    assert len(runner.complete(faces[:4])) == 4
    quick_rig.engines["refiner"].kills = True
    with pytest.raises(DeviceLostError, match=CAUSE):
        runner.complete(faces)
    chain.close()
    assert quick_rig.cuda.leaks() == []


def test_out_of_memory_halves_the_batch(quick_rig, batch_of, caplog):
    image, mask = batch_of(6)
    caplog.set_level("INFO", "showface")
    with quick_rig.open() as chain:
        engine, inner = quick_rig.engines["memory"], chain.submit

        def submit(images, masks):
            engine.fails = "Error Code 2: OutOfMemory" if len(images) > 2 else ""
            return inner(images, masks)

        chain.submit = submit
        runner = BatchRunner(Inpainter(chain, 256, "digest"), 4)
        assert len(runner.complete(list(zip(image, mask, strict=True)))) == 6
    assert runner.limit == 2
    assert caplog.messages == ["out of memory with 4 faces a batch; going on with 2"]


def test_a_folder_goes_on_where_the_device_was_lost(quick_rig, face_folder, monkeypatch, tmp_path, capsys):
    """The command line with engines: exit code 1, the cause in one sentence, and no file counted as failed."""
    images, masks = face_folder
    rig, seen = quick_rig, []
    monkeypatch.setattr(loader, "cuda_device", lambda index: rig.device)
    monkeypatch.setattr(loader, "load_library", lambda backend: rig.trt)
    monkeypatch.setattr("showface.runtime.backends.tensorrt.loader.CudaRuntime", lambda index: rig.cuda)
    refine = rig.engines["refiner"].compute

    def compute(inputs):
        if inputs["mask"].any():  # not while it is warmed up
            seen.append(len(inputs["mask"]))
            if len(seen) == 2:
                rig.cuda.broken = CAUSE
        return refine(inputs)

    rig.engines["refiner"].compute = compute
    command = ["inpaint", images, tmp_path / "out", "--masks", masks, "--bundle", rig.bundle.folder]

    def run():
        with pytest.raises(SystemExit) as ended:
            main([*map(str, command), "--backend", "tensorrt-rtx", "--batch-size", "1"])
        lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
        return ended.value.code, [json.loads(line)["status"] for line in lines]

    code, statuses = run()
    assert code == 1
    assert CAUSE in " ".join(capsys.readouterr().err.split())
    assert "failed" not in statuses
    gc.collect()  # the chain of the first run ends as with its process
    rig.cuda.broken = None
    for pool in (rig.cuda.arrays, rig.cuda.kinds, rig.cuda.streams, rig.cuda.events, rig.cuda.graphs):
        pool.clear()  # a new process
    rig.cuda.history.clear()
    code, statuses = run()
    assert code == 0
    assert "failed" not in statuses
    assert {path.name for path in images.iterdir()} <= {path.name for path in (tmp_path / "out").iterdir()}
