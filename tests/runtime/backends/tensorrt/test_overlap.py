"""Host and device work at the same time: shown with the fake's clock, by seconds and bytes that are counted."""

import numpy as np
import pytest

from showface.runtime.backends.batches import Chunk
from showface.runtime.inpainter import BatchRunner, Inpainter

BATCH, BATCHES = 8, 12
STAGE = 0.002  # seconds of an engine for a batch
HOST = 0.0021  # seconds of the host to prepare a batch, as was measured on one core
BANDWIDTH = 12e9  # bytes a second, PCIe 4


@pytest.fixture
def timed(make_rig, make_quick, monkeypatch):
    """A rig whose engines, copies and host take time on the fake's clock."""
    rig = make_quick(make_rig(compute=lambda inputs: {}, batches=(BATCH, BATCH, BATCH)))
    cut = Chunk.cut

    def slow_cut(self, faces, target):
        rig.cuda.now += HOST / 2  # for images, and for masks
        cut(self, faces, target)

    for engine in rig.engines.values():
        engine.seconds = lambda batch: STAGE * batch / BATCH
    rig.cuda.bandwidth, rig.cuda.launch_seconds = BANDWIDTH, 20e-6
    monkeypatch.setattr(Chunk, "cut", slow_cut)
    return rig


def seconds(cuda, work):
    before = cuda.now, sum(cuda.busy.values()), cuda.bytes
    work()
    return cuda.now - before[0], sum(cuda.busy.values()) - before[1], cuda.bytes - before[2]


def test_submitted_batches_hide_the_host_and_the_copies(timed, batch_of, expected, record_property):
    image, mask = batch_of(BATCH)
    cuda, results = timed.cuda, []
    device = 5 * STAGE * BATCHES

    def run(chain):
        waiting = None
        for _ in range(BATCHES):
            ticket = chain.submit(list(image), list(mask))
            if waiting is not None:
                results.append(waiting.result())
            waiting = ticket
        results.append(waiting.result())

    with timed.open() as chain:
        took, _, copied = seconds(cuda, lambda: run(chain))
        one_by_one, *_ = seconds(cuda, lambda: [chain.complete(image, mask) for _ in range(BATCHES)])
        at_once, *_ = seconds(cuda, lambda: chain.complete(*batch_of(BATCH * BATCHES)))
    for name, figure in {"submitted": took, "in one call": at_once, "one by one": one_by_one}.items():
        record_property(f"{name}, times of the device", round(figure / device, 4))
    record_property("bytes a face", copied / (BATCH * BATCHES))
    for result in results:
        np.testing.assert_array_equal(result, expected(image, mask))
    assert took <= 1.05 * device
    assert at_once <= 1.05 * device  # the parts of one call overlap as well
    assert one_by_one > 1.2 * device  # what it would be without
    assert copied / (BATCH * BATCHES) <= 1.9e6


def test_a_folder_s_batches_overlap(timed, batch_of, record_property):
    image, mask = batch_of(BATCH)
    faces = list(zip(image, mask, strict=True))
    device = 5 * STAGE * BATCHES

    with timed.open() as chain:
        runner = BatchRunner(Inpainter(chain, 256, "digest"), BATCH)

        def run():
            waiting = None
            for _ in range(BATCHES):
                pending = runner.start(faces)
                if waiting is not None:
                    assert len(runner.finish(waiting)) == BATCH
                waiting = pending
            runner.finish(waiting)

        took, *_ = seconds(timed.cuda, run)
    record_property("times of the device", round(took / device, 4))
    assert took <= 1.05 * device


def test_nothing_is_bound_again_and_shapes_are_inferred_once(quick_rig, batch_of):
    image, mask = batch_of(4)
    with quick_rig.open() as chain:
        for _ in range(2):
            chain.complete(image, mask)
        contexts = [context for engine in quick_rig.engines.values() for context in engine.contexts]
        for context in contexts:
            context.calls.clear()
        for _ in range(4):
            chain.complete(image, mask)
        assert {tuple(context.calls) for context in contexts} == {("execute_async_v3", "execute_async_v3")}


def test_a_session_waits_for_what_the_chain_works_on(quick_rig, batch_of, expected):
    """A reader asks the parser for a mask while faces are on the device: its memory is theirs until they are done."""
    image, mask = batch_of(4)
    with quick_rig.open() as chain:
        tickets = [chain.submit(image, mask), chain.submit(image[:1], mask[:1])]
        coarse = chain.sessions[0].run({"image": image, "mask": mask})["coarse_image"]
        np.testing.assert_array_equal(coarse, image * np.float32(0.5))
        np.testing.assert_array_equal(tickets[0].result(), expected(image, mask))
        np.testing.assert_array_equal(tickets[1].result(), expected(image[:1], mask[:1]))
