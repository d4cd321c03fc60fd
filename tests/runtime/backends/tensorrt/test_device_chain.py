"""The device chain over the strict fake: the same numbers as ONNX Runtime, and no handle or byte astray."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from showface.runtime.backends.batches import Chunk, batch_sizes, chunks, common_sizes
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.backends.tensorrt.engine import Graphs
from showface.runtime.errors import ShowfaceError, UsageError


@pytest.mark.parametrize("cuda_graph", [False, True, Graphs.CAPTURE])
def test_the_chain_equals_onnx_runtime(make_rig, batch_of, cuda_graph):
    rig = make_rig()
    image, mask = batch_of(3)
    reference = open_chain(rig.bundle, "cpu", 1)
    with rig.open(cuda_graph=cuda_graph) as chain:
        np.testing.assert_array_equal(chain.complete(image, mask), reference.complete(image, mask))
        ending = "; with CUDA graphs" if cuda_graph else ""
        assert chain.description == f"tensorrt-rtx 1.7.1.116 on Fake GPU (its engines for sm_86 match){ending}"
        assert chain.device == "cuda"
        truth = reference.run({"image": image, "mask": mask})
        tensors = chain.run({"image": image, "mask": mask})
        assert set(tensors) == set(truth)
        for name, value in truth.items():
            np.testing.assert_array_equal(tensors[name], value, err_msg=name)
    assert rig.cuda.leaks() == []


def test_the_occluder_runs_beside_the_chain(make_rig, green_bundle, batch_of):
    rig = make_rig(green_bundle)
    image, mask = batch_of(5)
    reference = open_chain(rig.bundle, "cpu", 1)
    wanted = reference.occluder.run({"image": image})["occlusion"]
    with rig.open(cuda_graph=Graphs.CAPTURE) as chain:
        assert [session.stage.name for session in chain.sessions] == [s.name for s in rig.bundle.manifest.stages]
        np.testing.assert_array_equal(chain.occluder.run({"image": image})["occlusion"], wanted)
        (context,) = rig.engines["occluder"].contexts  # the slots share it, because none of them runs it
        assert set(context.batches_run) == set(chain.sizes)  # every batch was prepared
        context.batches_run.clear()
        ticket = chain.submit(image, mask)  # finding waits for what the slots work on
        np.testing.assert_array_equal(chain.occluder.run({"image": image[::-1]})["occlusion"], wanted[::-1])
        np.testing.assert_array_equal(ticket.result(), reference.complete(image, mask))
        assert context.batches_run == [4, 1]  # completing does not look for occlusions
        assert "occluder" in chain.arithmetic
    assert chain.occluder is None
    assert rig.cuda.leaks() == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11, 17])
def test_a_batch_is_split_and_its_rest_filled_up_to_a_batch_that_is_prepared(quick_rig, batch_of, expected, count):
    image, mask = batch_of(count)
    with quick_rig.open() as chain:
        contexts = quick_rig.engines["refiner"].contexts
        for context in contexts:
            context.batches_run.clear()
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    rest = {0: [], 1: [1], 2: [2], 3: [4]}[count % 4]
    ran = [batch for context in contexts for batch in context.batches_run]
    assert sorted(ran) == sorted([4] * (count // 4) + rest)


def test_a_batch_below_the_profile_is_filled_up(quick_rig, batch_of, expected):
    for engine in quick_rig.engines.values():
        engine.profiles = ((3, 3, 4),)
        quick_rig.edit_sidecar(engine.stage.name, batches=[3, 3, 4])
    with quick_rig.open() as chain:
        for context in quick_rig.engines["coarse"].contexts:
            context.batches_run.clear()
        for count in (1, 5):
            image, mask = batch_of(count)
            np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        ran = [context.batches_run for context in quick_rig.engines["coarse"].contexts]
        assert ran == [[3, 3], [4]]  # the slots take turns
        session = chain.sessions[0]
        assert session.run({"image": image, "mask": mask})["coarse_image"].shape == image.shape


def test_a_limit_saves_memory_and_preparation(quick_rig, batch_of, expected):
    with quick_rig.open():
        whole = quick_rig.cuda.used("device")
    image, mask = batch_of(3)
    with quick_rig.open(batch_limit=1) as chain:
        assert chain.sizes == (1,)
        assert quick_rig.cuda.used("device") < whole / 3
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    with quick_rig.open(batch_limit=99) as chain:
        assert chain.sizes == (1, 2, 4)


def test_a_thousand_calls_take_no_memory_and_no_handle(quick_rig, batch_of, expected):
    image, mask = batch_of(1)
    with quick_rig.open() as chain:
        before, allocations = sorted(quick_rig.cuda.leaks()), quick_rig.cuda.calls.count("allocate")
        peak, pinned = quick_rig.cuda.peak, quick_rig.cuda.used("pinned")
        for _ in range(1000):
            result = chain.complete(image, mask)
        assert sorted(quick_rig.cuda.leaks()) == before
        assert quick_rig.cuda.calls.count("allocate") == allocations
        assert (quick_rig.cuda.peak, quick_rig.cuda.used("pinned")) == (peak, pinned)
        assert len(quick_rig.cuda.history) == 0
    np.testing.assert_array_equal(result, expected(image, mask))
    assert quick_rig.cuda.leaks() == []


def test_another_thread_works_on_the_same_device(quick_rig, batch_of, expected):
    image, mask = batch_of(2)
    with ThreadPoolExecutor(1) as pool, quick_rig.open() as chain:
        np.testing.assert_array_equal(pool.submit(chain.complete, image, mask).result(), expected(image, mask))
        ticket = chain.submit(image, mask)
        np.testing.assert_array_equal(pool.submit(ticket.result).result(), expected(image, mask))
    for session in ("complete", "session", "close"):
        with ThreadPoolExecutor(1) as pool:
            chain = quick_rig.open()
            calls = {
                "complete": lambda chain=chain: chain.complete(image, mask),
                "session": lambda chain=chain: chain.sessions[0].run({"image": image, "mask": mask}),
                "close": chain.close,
            }
            pool.submit(calls[session]).result()
            chain.close()
    assert quick_rig.cuda.leaks() == []


def test_the_engines_share_the_scratch_memory_of_the_greediest(quick_rig):
    quick_rig.engines["mrem"].device_memory_size_v2 = 100_000
    with quick_rig.open():
        contexts = [context for engine in quick_rig.engines.values() for context in engine.contexts]
        assert len(contexts) == 2 * len(quick_rig.engines)
        assert len({context.scratch for context in contexts}) == 1
        assert quick_rig.cuda.arrays[contexts[0].scratch].nbytes == 100_000


def test_a_lost_chain_frees_itself_and_a_closed_one_says_so(quick_rig, batch_of):
    chain = quick_rig.open()
    ticket = chain.submit(*batch_of(1))
    chain.close()
    chain.close()
    assert quick_rig.cuda.leaks() == []
    for call, arguments in ((ticket.result, ()), (chain.complete, batch_of(1)), (chain.submit, batch_of(1))):
        with pytest.raises(ShowfaceError, match="closed"):
            call(*arguments)
    chain = quick_rig.open()
    chain.submit(*batch_of(1))
    del chain, ticket, call
    gc.collect()
    assert quick_rig.cuda.leaks() == []


@pytest.mark.parametrize("stage", ["coarse", "mrem"])
def test_a_failing_engine_is_named_with_the_library_s_reason(quick_rig, batch_of, expected, stage):
    with quick_rig.open() as chain:
        before = chain.submit(*batch_of(2))
        quick_rig.engines[stage].fails = "Error Code 2: OutOfMemory (requested 1024 bytes)"
        said = rf"stage {stage}: TensorRT could not run the engine: Error Code 2: OutOfMemory \(requested 1024 bytes\)$"
        with pytest.raises(ShowfaceError, match=said) as caught:
            chain.complete(*batch_of(9))
        assert not isinstance(caught.value, UsageError)
        assert all(work.done for work in quick_rig.cuda.history)
        np.testing.assert_array_equal(before.result(), expected(*batch_of(2)))  # given before, and not concerned
        quick_rig.engines[stage].fails = ""
        image, mask = batch_of(2)
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert quick_rig.cuda.leaks() == []


def test_what_the_bindings_raise_is_an_error_of_the_stage(quick_rig, batch_of, expected):
    quick_rig.engines["mrem"].infer_error = "IExecutionContext::inferShapes: Error Code 3"
    with pytest.raises(ShowfaceError, match="stage mrem: TensorRT cannot infer the shapes of a batch of 4: IExecution"):
        quick_rig.open()
    assert quick_rig.cuda.leaks() == []


def test_contexts_that_the_library_does_not_make_are_shared_by_the_slots(quick_rig, batch_of, expected, caplog):
    image, mask = batch_of(9)
    quick_rig.engines["memory"].context_limit = 1
    quick_rig.engines["mrem"].shares_profiles = False
    with quick_rig.open() as chain:
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert "stage mrem: contexts cannot share a profile; profile 0 is in use" in caplog.text
    quick_rig.engines["memory"].context_limit = 0
    with pytest.raises(UsageError, match=r"memory\.engine: no execution context could be made: out of memory"):
        quick_rig.open()


def test_without_enough_memory_everything_is_given_back(quick_rig):
    with quick_rig.open():
        needed, pinned = quick_rig.cuda.used("device"), quick_rig.cuda.used("pinned")
    for share in (0.0, 0.3, 0.6, 0.99):
        quick_rig.cuda.budget = int(needed * share)
        with pytest.raises(UsageError, match="not enough memory"):
            quick_rig.open()
        assert quick_rig.cuda.leaks() == []
    quick_rig.cuda.budget, quick_rig.cuda.pinned = needed, pinned // 2
    with pytest.raises(ShowfaceError, match="cudaMallocHost: out of memory"):
        quick_rig.open()
    assert quick_rig.cuda.leaks() == []


def test_a_failure_while_warming_up_gives_everything_back(quick_rig):
    quick_rig.engines["refiner"].fails = "no"
    with pytest.raises(ShowfaceError, match="stage refiner"):
        quick_rig.open()
    assert quick_rig.cuda.leaks() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i, m: (i[:0], m[:0]), "image has a batch of 0, mask one of 0; give one face or more"),
        (lambda i, m: (i.astype(np.float64), m), "image of a face is float64"),
        (lambda i, m: (i, m[:, :, :128]), "mask of a face is float32"),
        (lambda i, m: (i, m[:1]), "image has a batch of 2, mask one of 1"),
        (lambda i, m: (i[0, :2], m), r"image of a face is float32 \(256, 256\), not float32 \(3, 256, 256\)"),
    ],
)
def test_wrong_inputs_are_refused_before_the_device_sees_them(quick_rig, batch_of, change, named):
    with quick_rig.open() as chain:
        quick_rig.cuda.calls.clear()
        with pytest.raises(UsageError, match=named):
            chain.complete(*change(*batch_of(2)))
        with pytest.raises(UsageError, match=r"image|mask"):
            chain.submit(*change(*batch_of(2)))
        assert quick_rig.cuda.calls == []


def test_chunks_cover_a_batch():
    assert list(chunks(5, (2, 4))) == [Chunk(0, 4, 4), Chunk(4, 1, 2)]
    assert list(chunks(3, (1, 2, 4))) == [Chunk(0, 3, 4)]
    assert batch_sizes(1, 8) == (1, 2, 4, 8)
    assert batch_sizes(3, 12) == (3, 4, 8, 12)
    assert batch_sizes(1, 1) == (1,)
    for total in range(1, 20):
        parts = list(chunks(total, (3, 5)))
        assert sum(part.count for part in parts) == total
        assert all(part.count <= part.batch for part in parts)


def test_profiles_that_exclude_each_other_are_refused():
    with pytest.raises(UsageError, match="do not go together"):
        common_sizes([(1, 1, 2), (3, 3, 4)])
