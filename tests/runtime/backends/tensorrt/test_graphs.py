"""CUDA graphs over the strict fake: by TensorRT-RTX itself, or captured by the chain, or refused and gone without."""

import numpy as np
import pytest
from fakes.cuda import MisuseError
from fakes.tensorrt import FakeEngine

from showface.runtime.backends.tensorrt.engine import Graphs
from showface.runtime.errors import ShowfaceError


def test_tensorrt_rtx_captures_by_itself(quick_rig, batch_of, expected):
    image, mask = batch_of(5)
    with quick_rig.open(cuda_graph=True) as chain:
        contexts = [context for engine in quick_rig.engines.values() for context in engine.contexts]
        assert {context.graphs for context in contexts} == {"WHOLE_GRAPH_CAPTURE"}
        assert {context.specialisation for context in contexts} == {"LAZY"}
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        assert "launch" not in quick_rig.cuda.calls
        assert quick_rig.cuda.graphs == {}


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_the_chain_captures_every_batch_in_every_slot(quick_enterprise_rig_or_rtx, batch_of, expected, backend):
    rig = quick_enterprise_rig_or_rtx(backend)
    image, mask = batch_of(11)
    with rig.open(cuda_graph=Graphs.CAPTURE if backend == "tensorrt-rtx" else True) as chain:
        assert len(rig.cuda.graphs) == 2 * len(chain.sizes) == 6
        contexts = [context for engine in rig.engines.values() for context in engine.contexts]
        for context in contexts:
            context.calls.clear()
        rig.cuda.calls.clear()
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        assert rig.cuda.calls.count("launch") == 3  # 4, 4 and 3 filled up to 4
        assert all(context.calls == [] for context in contexts)  # nothing is bound or executed again
        np.testing.assert_array_equal(chain.complete(image[:1], mask[:1]), expected(image[:1], mask[:1]))
        assert chain.description.endswith("; with CUDA graphs")
    assert rig.cuda.leaks() == []


@pytest.fixture
def quick_enterprise_rig_or_rtx(request):
    names = {"tensorrt": "quick_enterprise_rig", "tensorrt-rtx": "quick_rig"}
    return lambda backend: request.getfixturevalue(names[backend])


def test_every_graph_has_a_context_of_its_own(quick_enterprise_rig, batch_of, expected):
    """TensorRT calls a graph undefined whose context was given other shapes since; the fake refuses to be given any."""
    rig = quick_enterprise_rig
    with rig.open(cuda_graph=True) as chain:
        for engine in rig.engines.values():
            assert len(engine.contexts) == 2 * len(chain.sizes)
            assert all(context.captured and len(set(context.batches_run)) == 1 for context in engine.contexts)
        with pytest.raises(MisuseError, match="which spoils the graph"):
            engine.contexts[0].set_input_shape("coarse_image", (2, 3, 256, 256))
        for count in (1, 4, 2, 11):
            image, mask = batch_of(count)
            np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
            assert chain.sessions[0].run({"image": image, "mask": mask})["coarse_image"].shape == image.shape


def test_without_a_context_for_each_graph_there_are_none(quick_enterprise_rig, batch_of, expected):
    rig = quick_enterprise_rig
    rig.engines["memory"].context_limit = 5  # of six
    image, mask = batch_of(3)
    with rig.open(cuda_graph=True) as chain:
        assert "CUDA graphs are not used: there is no execution context for each of them" in chain.description
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert rig.cuda.leaks() == []


def not_capturable(rig):
    rig.engines["memory"].capturable = False


def ends_in_an_error(rig):
    rig.cuda.capture_error = "operation not permitted when stream is capturing (900)"


def allocating(rig):
    rig.engines["memory"].user_allocation = False


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (not_capturable, "stage memory: the engine cannot be captured on a stream"),
        (allocating, "stage memory: the engine cannot be captured on a stream"),
        (ends_in_an_error, "cudaStreamEndCapture: operation not permitted"),
    ],
)
def test_a_refused_capture_is_gone_without_and_said(quick_rig, batch_of, expected, caplog, fault, said):
    fault(quick_rig)
    image, mask = batch_of(6)
    with quick_rig.open(cuda_graph=Graphs.CAPTURE) as chain:
        assert "; CUDA graphs are not used: " in chain.description
        assert said in chain.description
        assert said in caplog.text
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
        assert "launch" not in quick_rig.cuda.calls
    assert quick_rig.cuda.leaks() == []


def test_an_engine_that_fails_under_capture_is_told_by_its_own_reason(quick_enterprise_rig, batch_of, expected):
    rig = quick_enterprise_rig
    begin = rig.cuda.begin_capture

    def begin_and_break(stream):
        begin(stream)
        rig.engines["mrem"].fails = "cannot be captured"

    rig.cuda.begin_capture = begin_and_break
    end = rig.cuda.abort_capture

    def abort(stream):
        end(stream)
        rig.engines["mrem"].fails = ""

    rig.cuda.abort_capture = abort
    with rig.open(cuda_graph=True) as chain:
        assert "not used: stage mrem: TensorRT could not run the engine: cannot be captured" in chain.description
        image, mask = batch_of(2)
        np.testing.assert_array_equal(chain.complete(image, mask), expected(image, mask))
    assert rig.cuda.leaks() == []


def test_what_spoils_a_capture_is_refused_by_the_fake(quick_rig):
    cuda, engine = quick_rig.cuda, quick_rig.engines["coarse"]
    stream = cuda.create_stream()
    context = engine.create_execution_context("USER_MANAGED")
    for spoil in (
        lambda: cuda.allocate(16),
        lambda: cuda.synchronize(stream),
        lambda: context.infer_shapes(),
        lambda: context.set_tensor_address("image", 1),
    ):
        cuda.begin_capture(stream)
        with pytest.raises(MisuseError, match="captured"):
            spoil()
        cuda.abort_capture(stream)
    cuda.begin_capture(stream)
    with pytest.raises(MisuseError, match="not allowed"):
        cuda.allocate_pinned(16)
    with pytest.raises(ShowfaceError, match="901"):
        cuda.end_capture(stream)
    config = engine.create_runtime_config()
    with pytest.raises(AttributeError):
        config.cuda_graph_stategy = "a misspelt property"
    other = FakeEngine(cuda, engine.stage, quick_rig.bundle, (1, 2, 4), engine.compute, backend="tensorrt")
    with pytest.raises(AttributeError):
        other.create_runtime_config()
