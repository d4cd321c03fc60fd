"""The device chain over the strict fake: the same numbers as ONNX Runtime, and no handle or byte astray."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.cuda import MisuseError

from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.backends.tensorrt.chain import common_batches
from showface.runtime.backends.tensorrt.loader import open_folder
from showface.runtime.backends.tensorrt.session import Chunk, chunks
from showface.runtime.errors import ShowfaceError, UsageError


def open_rig(rig, **options):
    return open_folder(rig.folder, rig.trt, rig.cuda, rig.device, **options)


def batch_of(chain_inputs, count):
    chosen = [i % len(chain_inputs[0]) for i in range(count)]
    brightness = np.linspace(1, 0.5, count, dtype=np.float32)[:, None, None, None]
    return chain_inputs[0][chosen] * brightness, chain_inputs[1][chosen]


@pytest.fixture
def quick_rig(make_rig, zeros):
    """A rig whose engines only copy the image; the mask decides nothing."""
    rig = make_rig(compute=lambda inputs: {})
    blank = zeros(rig.bundle.manifest)
    for name, engine in rig.engines.items():
        wanted = engine.stage.outputs

        def compute(inputs, wanted=wanted, name=name):
            outputs = {k: v for k, v in blank(inputs).items() if k in wanted}
            if name == "coarse":
                outputs["coarse_image"] = inputs["image"] * 0.5
            if name == "refiner":
                outputs["completed_image"] = inputs["coarse_image"] + inputs["mask"]
            return outputs

        engine.compute = compute
    return rig


def expected(image, mask):
    return image * np.float32(0.5) + mask


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_chain_equals_onnx_runtime(make_rig, chain_inputs, cuda_graph):
    rig = make_rig()
    image, mask = batch_of(chain_inputs, 3)
    reference = open_chain(rig.bundle, "cpu", 1)
    with open_rig(rig, cuda_graph=cuda_graph) as chain:
        np.testing.assert_array_equal(chain.complete(image, mask), reference.complete(image, mask))
        assert chain.description == "tensorrt-rtx 1.7.1.116 on Fake GPU (its engines for sm_86 match)"
        assert chain.device == "cuda"
        truth = reference.run({"image": image, "mask": mask})
        tensors = chain.run({"image": image, "mask": mask})
        assert set(tensors) == set(truth)
        for name, value in truth.items():
            np.testing.assert_array_equal(tensors[name], value, err_msg=name)
    assert rig.cuda.leaks() == []


def test_the_occluder_runs_beside_the_chain(make_rig, green_bundle, chain_inputs):
    rig = make_rig(green_bundle)
    image, mask = batch_of(chain_inputs, 5)
    reference = open_chain(rig.bundle, "cpu", 1)
    wanted = reference.occluder.run({"image": image})["occlusion"]
    with open_rig(rig) as chain:
        assert [session.stage.name for session in chain.sessions] == [s.name for s in rig.bundle.manifest.stages]
        np.testing.assert_array_equal(chain.occluder.run({"image": image})["occlusion"], wanted)
        context = rig.engines["occluder"].contexts[0]
        context.batches_run.clear()
        np.testing.assert_array_equal(chain.complete(image, mask), reference.complete(image, mask))
        assert context.batches_run == []  # completing does not look for occlusions
        assert "occluder" in chain.arithmetic
    assert chain.occluder is None
    assert rig.cuda.leaks() == []


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 11, 17])
def test_a_batch_beyond_the_profile_is_split(quick_rig, chain_inputs, count):
    image, mask = batch_of(chain_inputs, count)
    with open_rig(quick_rig) as chain:
        context = quick_rig.engines["refiner"].contexts[0]
        context.batches_run.clear()
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert context.batches_run == [4] * (count // 4) + [count % 4] * (count % 4 > 0)


def test_a_batch_below_the_profile_is_filled_up(quick_rig, chain_inputs):
    for engine in quick_rig.engines.values():
        engine.batches = (3, 3, 4)
        quick_rig.edit_sidecar(engine.stage.name, batches=[3, 3, 4])
    with open_rig(quick_rig) as chain:
        context = quick_rig.engines["coarse"].contexts[0]
        context.batches_run.clear()
        for count in (1, 5):
            image, mask = batch_of(chain_inputs, count)
            np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        assert context.batches_run == [3, 4, 3]
        session = chain.sessions[0]
        assert session.run({"image": image, "mask": mask})["coarse_image"].shape == image.shape


def test_a_graph_is_launched_and_nothing_is_bound_again(quick_rig, chain_inputs):
    with open_rig(quick_rig, cuda_graph=True) as chain:
        context = quick_rig.engines["coarse"].contexts[0]
        context.batches_run.clear()
        quick_rig.cuda.calls.clear()
        image, mask = batch_of(chain_inputs, 5)
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        assert quick_rig.cuda.calls.count("launch") == 3  # batches of 2, the profile's best
        assert context.batches_run == []
    assert quick_rig.cuda.leaks() == []


def test_the_next_upload_does_not_wait_for_this_download(quick_rig, chain_inputs):
    image, mask = batch_of(chain_inputs, 12)
    with open_rig(quick_rig) as chain:
        quick_rig.cuda.calls.clear()
        chain.complete(image, mask)
        copies = quick_rig.cuda.calls
    assert copies == ["upload"] * 4 + ["download"] + ["upload"] * 2 + ["download"] * 2


def test_a_thousand_calls_take_no_memory_and_no_handle(quick_rig, chain_inputs):
    image, mask = batch_of(chain_inputs, 1)
    with open_rig(quick_rig) as chain:
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


def test_another_thread_works_on_the_same_device(quick_rig, chain_inputs):
    image, mask = batch_of(chain_inputs, 2)
    with ThreadPoolExecutor(1) as pool, open_rig(quick_rig) as chain:
        np.testing.assert_array_equal(pool.submit(chain.complete, image, mask).result(), expected(image, mask))
    for session in ("complete", "session", "close"):
        with ThreadPoolExecutor(1) as pool:
            chain = open_rig(quick_rig)
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
    with open_rig(quick_rig):
        contexts = [engine.contexts[0] for engine in quick_rig.engines.values()]
        assert len({context.scratch for context in contexts}) == 1
        assert quick_rig.cuda.arrays[contexts[0].scratch].nbytes == 100_000


def test_a_lost_chain_frees_itself_and_a_closed_one_says_so(quick_rig, chain_inputs):
    chain = open_rig(quick_rig)
    chain.close()
    chain.close()
    assert quick_rig.cuda.leaks() == []
    with pytest.raises(ShowfaceError, match="closed"):
        chain.complete(*batch_of(chain_inputs, 1))
    chain = open_rig(quick_rig)
    del chain
    gc.collect()
    assert quick_rig.cuda.leaks() == []


@pytest.mark.parametrize("stage", ["coarse", "mrem"])
def test_a_failing_engine_is_named_and_leaves_nothing_under_way(quick_rig, chain_inputs, stage):
    with open_rig(quick_rig) as chain:
        quick_rig.engines[stage].fails = True
        with pytest.raises(ShowfaceError, match=f"stage {stage}: TensorRT could not run the engine") as caught:
            chain.complete(*batch_of(chain_inputs, 9))
        assert not isinstance(caught.value, UsageError)
        assert all(work.done for work in quick_rig.cuda.history)
        quick_rig.engines[stage].fails = False
        image, mask = batch_of(chain_inputs, 2)
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert quick_rig.cuda.leaks() == []


def test_without_enough_memory_everything_is_given_back(quick_rig):
    with open_rig(quick_rig):
        needed = quick_rig.cuda.used("device")
    for share in (0.0, 0.3, 0.6, 0.99):
        quick_rig.cuda.budget = int(needed * share)
        with pytest.raises(UsageError, match="not enough memory"):
            open_rig(quick_rig)
        assert quick_rig.cuda.leaks() == []


def test_a_failure_while_warming_up_gives_everything_back(quick_rig):
    quick_rig.engines["refiner"].fails = True
    with pytest.raises(ShowfaceError, match="stage refiner"):
        open_rig(quick_rig)
    assert quick_rig.cuda.leaks() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i, m: (i[:0], m[:0]), r"image is float32 \(0, 3, 256, 256\), not float32 \(B ≥ 1, 3, 256, 256\)"),
        (lambda i, m: (i.astype(np.float64), m), "image is float64"),
        (lambda i, m: (i, m[:, :, :128]), "mask is float32"),
        (lambda i, m: (i, m[:1]), "image has a batch of 2, mask one of 1"),
        (lambda i, m: (i[0], m), "image is float32"),
    ],
)
def test_wrong_inputs_are_refused_before_the_device_sees_them(quick_rig, chain_inputs, change, named):
    with open_rig(quick_rig) as chain:
        quick_rig.cuda.calls.clear()
        with pytest.raises(UsageError, match=named):
            chain.complete(*change(*batch_of(chain_inputs, 2)))
        assert quick_rig.cuda.calls == []


def test_chunks_cover_a_batch():
    assert list(chunks(5, 2, 4)) == [Chunk(0, 4, 4), Chunk(4, 1, 2)]
    assert list(chunks(2, 1, 4)) == [Chunk(0, 2, 2)]
    for total in range(1, 20):
        parts = list(chunks(total, 3, 5))
        assert sum(part.count for part in parts) == total
        assert all(3 <= part.batch <= 5 for part in parts)


def test_profiles_that_exclude_each_other_are_refused(quick_rig):
    engines = list(quick_rig.engines.values())
    engines[0].batches, engines[1].batches = (1, 1, 2), (3, 3, 4)
    with pytest.raises(UsageError, match="do not go together"):
        common_batches(engines, False)


class TestTheFakeIsStrict:
    """Each wrong use that the fake is there to find does raise."""

    def test_a_missing_wait_between_the_streams_is_a_race(self, quick_rig, chain_inputs, monkeypatch):
        with open_rig(quick_rig) as chain:
            monkeypatch.setattr(quick_rig.cuda, "wait", lambda stream, event: None)
            with pytest.raises(MisuseError, match="race"):
                chain.complete(*batch_of(chain_inputs, 1))

    def test_a_result_that_is_read_too_early_is_wrong(self, quick_rig, chain_inputs, monkeypatch):
        image, mask = batch_of(chain_inputs, 4)
        with open_rig(quick_rig) as chain:
            monkeypatch.setattr(quick_rig.cuda, "synchronize_event", lambda event: None)
            assert not np.array_equal(chain.complete(image, mask), expected(image, mask))
            monkeypatch.undo()

    def test_use_after_free_and_double_free(self, cuda):
        stream, address = cuda.create_stream(), cuda.allocate(16)
        host = np.zeros(16, np.uint8)
        cuda.free(address)
        with pytest.raises(MisuseError, match="no device memory"):
            cuda.upload(address, host.ctypes.data, 16, stream)
        with pytest.raises(MisuseError, match="freed before"):
            cuda.free(address)
        with pytest.raises(MisuseError, match="no stream"):
            cuda.synchronize(99)
        with pytest.raises(MisuseError, match="never recorded"):
            cuda.wait(stream, cuda.create_event())

    def test_memory_freed_under_work_and_overrun(self, cuda):
        stream, address, host = cuda.create_stream(), cuda.allocate(16), np.zeros(32, np.uint8)
        with pytest.raises(MisuseError, match="32 bytes of 16"):
            cuda.upload(address, host.ctypes.data, 32, stream)
        cuda.upload(address, host.ctypes.data, 16, stream)
        with pytest.raises(MisuseError, match="under way"):
            cuda.free(address)

    def test_an_unbound_tensor_and_missing_scratch(self, quick_rig, cuda):
        context = quick_rig.engines["coarse"].create_execution_context("USER_MANAGED")
        stream = cuda.create_stream()
        for name in ("image", "mask"):
            assert context.set_input_shape(name, quick_rig.engines["coarse"].shape(name, 1))
        assert not context.set_input_shape("image", (9, 3, 256, 256))
        with pytest.raises(MisuseError, match="no scratch memory"):
            context.execute_async_v3(stream)
        context.set_device_memory(cuda.allocate(4096), 4096)
        with pytest.raises(MisuseError, match="not bound"):
            context.execute_async_v3(stream)
