"""The comparison catches what it should and lets ties pass."""

import json

import numpy as np
import pytest

from showface.evaluation.parity.cases import Case, array_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.sources import ChainSource, Identity, KeptSource, golden_source
from showface.evaluation.parity.tolerances import TOLERANCES, plan_tolerances
from showface.runtime.backends.chain import Chain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import CHAIN_INPUTS, STAGES, VARIANTS, Stage

SIDE = 256
TIE_MARGIN = TOLERANCES["float32"].tie_margin
PRECISION = {stage.name: "float32" for stage in STAGES}
TABLE = plan_tolerances(PRECISION, None, {})


def check_parity(chain, references):
    """Return the result of comparing a chain with tensors of several cases."""
    stages = tuple(session.stage for session in chain.sessions)
    variant = next(name for name, table in VARIANTS.items() if table == stages)
    identity = Identity("the chain", variant, SIDE, "", {stage.name: "float32" for stage in stages})
    cases = [Case(f"reference-{k}", {name: r[name] for name in CHAIN_INPUTS}) for k, r in enumerate(references)]
    kept = KeptSource(identity, {case.name: r for case, r in zip(cases, references, strict=True)})
    tolerances = plan_tolerances(identity.precision, None, {})
    return compare_sources(kept, ChainSource(chain, identity), cases, tolerances).result


@pytest.fixture
def one_face(narrow_bundle):
    """Return the reference of the first golden face, as writable copies."""
    source, case = golden_source(open_bundle(narrow_bundle))
    return {name: tensor[:1].copy() for name, tensor in source.chain(case).items()}


def test_the_golden_file_proves_the_bundle(narrow_source, narrow_bundle):
    reference, case = golden_source(open_bundle(narrow_bundle))
    outcome = compare_sources(reference, narrow_source, [case], TABLE)
    result, pictures = outcome.result, outcome.pictures
    assert result["passed"] is True
    assert list(result["stages"]) == [stage.name for stage in STAGES]
    assert result["images"] == 3
    assert list(result["chain"]["tensors"]) == [name for stage in STAGES for name in stage.outputs]
    assert len(pictures) == 3
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("tensor", "stage"),
    [
        ("coarse_image", "coarse"),
        ("memory_codes", "memory"),
        ("known_codes", "memory"),
        ("guidance", "mrem"),
        ("completed_image", "refiner"),
    ],
)
def test_a_disturbed_golden_tensor_fails_its_stage(narrow_chain, one_face, tensor, stage):
    one_face[tensor].flat[7] += 0.01
    report = check_parity(narrow_chain, [one_face])
    assert report["passed"] is False
    assert not report["stages"][stage]["passed"]
    assert any(text.startswith(f"{tensor}: ") for text in report["stages"][stage]["failures"])


def test_disturbed_labels_fail_the_parser(narrow_chain, one_face):
    labels = one_face["semantic_map"]
    labels[0, :8] = (labels[0, :8] + 1) % 14
    report = check_parity(narrow_chain, [one_face])
    assert not report["stages"]["parser"]["passed"]


def test_one_bad_reference_among_good_ones_fails(narrow_chain, one_face):
    bad = {name: tensor.copy() for name, tensor in one_face.items()}
    bad["completed_image"].flat[0] = np.nan
    for position, references in ((1, [one_face, bad]), (0, [bad, one_face])):
        report = check_parity(narrow_chain, references)
        assert report["passed"] is False
        assert report["chain"]["tensors"]["completed_image"]["nan"] == 1
        assert report["chain"]["worst_image"] == f"reference-{position}"


class FakeSession:
    """A stage made of a plain function."""

    def __init__(self, name, inputs, output, function):
        self.stage, self.function = Stage(name, inputs, (output,)), function

    def run(self, inputs):
        return {self.stage.outputs[0]: self.function(*(inputs[name] for name in self.stage.inputs))}


VARIANTS_OF_TEST = (
    Stage("coarse", ("image", "mask"), ("coarse_image",)),
    Stage("parser", ("coarse_image",), ("semantic_map",)),
    Stage("refiner", ("coarse_image", "mask", "semantic_map"), ("completed_image",)),
)


@pytest.fixture
def short_chain(monkeypatch):
    """Let the table know a chain of three stages, and return a function that makes one.

    It gives the first ``flips`` pixels label 1 instead of 0, and paints the labels.
    """
    monkeypatch.setitem(VARIANTS, "short", VARIANTS_OF_TEST)

    def make(flips, bias=0.0):
        def labels_of(image):
            labels = np.zeros((1, SIDE, SIDE), np.int32)
            labels.flat[:flips] = 1
            return labels

        def paint(image, mask, labels):
            return image + mask * labels[:, None].astype(np.float32) + np.float32(bias)

        functions = (lambda image, mask: image, labels_of, paint)
        stages = zip(VARIANTS_OF_TEST, functions, strict=True)
        return Chain([FakeSession(s.name, s.inputs, s.outputs[0], f) for s, f in stages], "fake")

    return make


@pytest.fixture
def short_reference(short_chain):
    def make(margin):
        reference = short_chain(0).run(
            {"image": np.zeros((1, 3, SIDE, SIDE), np.float32), "mask": np.ones((1, 1, SIDE, SIDE), np.float32)}
        )
        return {**reference, "semantic_margin": np.full((1, SIDE, SIDE), margin, np.float32)}

    return make


def test_a_label_that_flips_on_a_tie_passes_though_the_face_changes(short_chain, short_reference):
    figures = check_parity(short_chain(3), [short_reference(TIE_MARGIN / 2)])["chain"]
    assert figures["passed"]
    assert (figures["flips"], figures["real_flips"]) == (3, 0)
    assert figures["max_abs"] == 0.0
    assert figures["own_labels_max_abs"] == 1.0
    assert figures["agreement"] == pytest.approx(1 - 3 / SIDE**2)
    assert figures["largest_flipped_margin"] == pytest.approx(TIE_MARGIN / 2)


def test_a_single_real_flip_fails(short_chain, short_reference):
    figures = check_parity(short_chain(1), [short_reference(TIE_MARGIN * 2)])["chain"]
    assert not figures["passed"]
    assert (figures["flips"], figures["real_flips"]) == (1, 1)


def test_too_many_ties_fail(short_chain, short_reference):
    assert not check_parity(short_chain(7), [short_reference(0.0)])["passed"]


def test_an_error_on_the_reference_s_own_labels_fails(short_chain, short_reference):
    report = check_parity(short_chain(0, bias=0.01), [short_reference(1.0)])
    assert not report["passed"]
    assert report["stages"]["parser"]["passed"]
    assert not report["stages"]["refiner"]["passed"]
    assert not report["chain"]["passed"]


def test_flips_are_counted_over_all_references(short_chain, short_reference):
    report = check_parity(short_chain(2), [short_reference(0.0), short_reference(0.0)])
    assert report["passed"]
    assert report["chain"]["flips"] == 4


def identity(**changes):
    values = {"description": "x", "variant": "full", "image_size": 256, "weights": "a", "precision": PRECISION}
    return Identity(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"weights": "b"}, "other weights"), ({"image_size": 128}, "128"), ({"variant": "no-memory"}, "different stages")],
)
def test_sources_that_do_not_belong_together_are_refused(changes, words, narrow_chain):
    sources = ChainSource(narrow_chain, identity()), ChainSource(narrow_chain, identity(**changes))
    with pytest.raises(UsageError, match=words):
        compare_sources(*sources, [], TABLE)


def test_the_case_that_shows_a_fault_is_kept_for_attribution(narrow_source, narrow_chain, chain_inputs):
    """Its batch and its given labels with it: neither need be among the worst images of the chain."""
    mrem = narrow_chain.sessions[-2]

    class Faulty:
        stage = mrem.stage

        def run(self, inputs):
            guidance = mrem.run(inputs)["guidance"]
            return {"guidance": guidance + np.float32(1e-3) if inputs["semantic_map"].all() else guidance}

    sessions = [*narrow_chain.sessions[:-2], Faulty(), narrow_chain.sessions[-1]]
    faulty = ChainSource(Chain(sessions, "faulty"), narrow_source.identity)
    faces = [*array_cases(*chain_inputs, "face")]
    pair = {name: np.concatenate([face.inputs[name] for face in faces[:2]]) for name in CHAIN_INPUTS}
    case = Case("skin-only", pair, {"semantic_map": np.ones((2, SIDE, SIDE), np.int32)})
    background = [Case(f.name, f.inputs, {"semantic_map": np.zeros((1, SIDE, SIDE), np.int32)}) for f in faces]
    outcome = compare_sources(narrow_source, faulty, [background[0], case, *background[1:]], TABLE)
    assert [name for name, figures in outcome.result["stages"].items() if not figures["passed"]] == ["mrem"]
    assert outcome.suspects["mrem"] == [case]


def test_no_case_at_all_is_refused(narrow_source):
    with pytest.raises(UsageError, match="there is no image to compare"):
        compare_sources(narrow_source, narrow_source, [], TABLE)


def test_a_batch_gives_each_face_as_it_is_alone(narrow_bundle, faces):
    inpainter = Inpainter.from_bundle(narrow_bundle, "cpu", 2)
    together = inpainter.complete_batch(faces)
    for (pixels, hole), completed in zip(faces, together, strict=True):
        assert np.array_equal(inpainter.complete(pixels, hole), completed)
        assert np.array_equal(completed[~hole], pixels[~hole])
        assert not np.array_equal(completed[hole], pixels[hole])
