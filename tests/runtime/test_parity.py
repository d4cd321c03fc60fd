"""The comparison catches what it should and lets ties pass; saved outputs are a side like any other."""

import hashlib
import json

import numpy as np
import pytest

from showface.runtime.backends import open_chain
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import UsageError
from showface.runtime.inpainter import Inpainter
from showface.runtime.parity import check_parity, compare_sources, golden_reference
from showface.runtime.parity.cases import Case, array_cases, face_cases, generated_cases, mask_bins
from showface.runtime.parity.saved import OUTPUTS_FILE, OutputsWriter, open_outputs
from showface.runtime.parity.sources import ChainSource, Identity, golden_source, source_of_bundle
from showface.runtime.parity.tolerances import TOLERANCES, plan_tolerances
from showface.runtime.session import Chain
from showface.runtime.stages import CATEGORIES, CHAIN_INPUTS, STAGES, VARIANTS, Stage

SIDE = 256
TIE_MARGIN = TOLERANCES["float32"].tie_margin
PRECISION = {stage.name: "float32" for stage in STAGES}
TABLE = plan_tolerances(PRECISION, None, {})


@pytest.fixture(scope="module")
def narrow_chain(narrow_bundle):
    return open_chain(open_bundle(narrow_bundle), "auto", "cpu", 2)


@pytest.fixture(scope="module")
def narrow_source(narrow_bundle, narrow_chain):
    return source_of_bundle(open_bundle(narrow_bundle), narrow_chain)


@pytest.fixture
def one_face(narrow_bundle):
    """Return the reference of the first golden face, as writable copies."""
    return {name: tensor[:1].copy() for name, tensor in golden_reference(open_bundle(narrow_bundle)).items()}


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


@pytest.fixture
def saved(narrow_source, chain_inputs, tmp_path):
    """Return the folder of saved outputs of two faces and a case with labels that were given."""
    cases = [*array_cases(chain_inputs[0][:2], chain_inputs[1][:2], "face")]
    cases.append(next(c for c in generated_cases(*chain_inputs, 1) if c.given))
    with OutputsWriter(tmp_path / "saved", narrow_source.identity) as writer:
        for case in cases:
            writer.add(case, narrow_source.chain(case))
    return tmp_path / "saved"


def test_saved_outputs_serve_as_either_side(saved, narrow_source):
    opened = open_outputs(saved)
    assert [case.name for case in opened.cases()] == ["face-0", "face-1", "category-absent"]
    for pair in ((opened, narrow_source), (narrow_source, opened)):
        result = compare_sources(*pair, opened.cases(), TABLE).result
        assert result["passed"]
        assert set(result["stages"]) == set(PRECISION)
        assert result["chain"]["max_abs"] == 0.0
    alone = compare_sources(opened, open_outputs(saved), opened.cases(), TABLE).result
    assert alone["passed"]
    assert alone["stages"] == {}  # nobody can run them


def test_a_difference_to_saved_outputs_is_found_in_its_stage(saved, narrow_source, narrow_chain):
    class Shifted:
        stage = narrow_chain.sessions[-1].stage

        def run(self, inputs):
            return {"completed_image": narrow_chain.sessions[-1].run(inputs)["completed_image"] + np.float32(1e-3)}

    shifted = ChainSource(Chain([*narrow_chain.sessions[:-1], Shifted()], "shifted"), narrow_source.identity)
    opened = open_outputs(saved)
    for pair in ((opened, shifted), (shifted, opened)):
        result = compare_sources(*pair, opened.cases(), TABLE).result
        assert [name for name, figures in result["stages"].items() if not figures["passed"]] == ["refiner"]


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


def edit_list(folder, edit):
    data = json.loads((folder / OUTPUTS_FILE).read_text())
    edit(data)
    (folder / OUTPUTS_FILE).write_text(json.dumps(data))


def test_broken_or_foreign_saved_outputs_are_refused(saved, narrow_source, tmp_path):
    opened = open_outputs(saved)
    case = next(opened.cases())
    other = Case(case.name, {**case.inputs, "mask": 1 - case.inputs["mask"]})
    with pytest.raises(UsageError, match="other inputs"):
        opened.chain(other)
    with pytest.raises(UsageError, match="no outputs for elsewhere"):
        opened.chain(Case("elsewhere", case.inputs))
    data = bytearray((saved / "00001.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (saved / "00001.npz").write_bytes(data)
    with pytest.raises(UsageError, match=r"00001\.npz: its hash differs"):
        compare_sources(open_outputs(saved), narrow_source, opened.cases(), TABLE)
    (saved / "00001.npz").unlink()
    with pytest.raises(UsageError, match=r"00001\.npz"):
        list(opened.cases())
    with pytest.raises(UsageError, match=OUTPUTS_FILE):
        open_outputs(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        OutputsWriter(saved, narrow_source.identity)


def test_a_saved_file_without_arrays_is_refused(saved):
    (saved / "00000.npz").write_bytes(b"PK no archive")
    digest = hashlib.sha256(b"PK no archive").hexdigest()
    edit_list(saved, lambda data: data["cases"][0].update(sha256=digest))
    with pytest.raises(UsageError, match=r"00000\.npz: holds no arrays"):
        list(open_outputs(saved).cases())


def test_no_case_at_all_is_refused(narrow_source):
    with pytest.raises(UsageError, match="there is no image to compare"):
        compare_sources(narrow_source, narrow_source, [], TABLE)


def test_cases_are_made_from_the_first_face_that_has_a_hole(chain_inputs):
    image, mask = chain_inputs[0], chain_inputs[1].copy()
    mask[0] = 0
    cases = {case.name: case for case in generated_cases(image, mask, 1)}
    assert (cases["category-hidden"].given["semantic_map"] != cases["category-absent"].given["semantic_map"]).any()
    np.testing.assert_array_equal(cases["empty-mask"].inputs["image"], image[1:2])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(schema_version=9), "newer"),
        (lambda d: d.update(schema_version="1"), "schema_version"),
        (lambda d: d.pop("source"), "source"),
        (lambda d: d["source"].update(variant="other"), "other"),
        (lambda d: d["source"].update(variant="no-memory"), "do not fit"),
        (lambda d: d["source"].update(variant=["full"]), "not a list of saved outputs"),
        (lambda d: d["source"].update(precision="float32"), "not a list of saved outputs"),
        (lambda d: d["source"].update(image_size="256"), "image_size"),
        (lambda d: d["source"]["environment"].update(python=3), "not a list of saved outputs"),
        (lambda d: d.update(cases=[7]), "not a list of saved outputs"),
        (lambda d: d["cases"][0].update(name=None), "malformed"),
        (lambda d: d["cases"][0].update(sha256=0), "malformed"),
        (lambda d: d["cases"][0].update(file="../secret.npz"), "malformed"),
        (lambda d: d["cases"].clear(), "no cases"),
        (lambda d: d["cases"].append(d["cases"][0]), "one twice"),
        (lambda d: d["cases"][0].update(digest="0"), None),
    ],
)
def test_a_list_of_saved_outputs_that_is_wrong_is_refused(saved, edit, words):
    edit_list(saved, edit)
    if words is None:
        with pytest.raises(UsageError, match="not those of face-0"):
            list(open_outputs(saved).cases())
        return
    with pytest.raises(UsageError, match=words) as caught:
        open_outputs(saved)
    assert str(saved) in str(caught.value)


def test_outputs_of_a_run_that_broke_leave_nothing(narrow_source, tmp_path):
    with pytest.raises(RuntimeError), OutputsWriter(tmp_path / "out", narrow_source.identity):
        raise RuntimeError("the device was unplugged")
    assert list(tmp_path.iterdir()) == []


def test_the_cases_made_on_purpose_are_what_their_names_say(chain_inputs):
    cases = {case.name: case for case in generated_cases(*chain_inputs, 4)}
    assert len(cases) == 10
    for case in cases.values():
        assert case.inputs["image"].dtype == case.inputs["mask"].dtype == np.float32
        assert np.abs(case.inputs["image"]).max() <= 1
        hidden = np.broadcast_to(case.inputs["mask"] > 0, case.inputs["image"].shape)
        assert not case.inputs["image"][hidden].any()
    assert cases["empty-mask"].inputs["mask"].sum() == 0
    assert cases["full-mask"].inputs["mask"].min() == 1
    assert cases["one-pixel-holes"].inputs["mask"].sum() == 4
    assert cases["constant-image"].inputs["image"].max() == 0.25
    assert set(np.unique(cases["extreme-contrast"].inputs["image"])) == {-1.0, 0.0, 1.0}
    assert [len(cases[f"batch-{n}"].inputs["image"]) for n in (1, 2, 4)] == [1, 2, 4]
    labels = cases["category-absent"].given["semantic_map"]
    assert set(np.unique(labels)) == {CATEGORIES.index("background"), CATEGORIES.index("skin")}
    case = cases["category-hidden"]
    nose = case.given["semantic_map"] == CATEGORIES.index("nose")
    np.testing.assert_array_equal(nose, case.inputs["mask"][:, 0] > 0)
    assert len({case.digest for case in cases.values()}) == len(cases)


def test_faces_spread_over_the_bins_of_masks(face_folder, tmp_path):
    images, masks = face_folder
    bins = tmp_path / "bins"
    for name, files in (("00-10", "ab"), ("10-20", "c")):
        (bins / name).mkdir(parents=True)
        for stem in files:
            (bins / name / f"{stem}.png").write_bytes((masks / f"{stem}.png").read_bytes())
    assert [[path.name for path in row] for row in mask_bins(bins)] == [["a.png", "b.png"], ["c.png"]]
    spread, by_stem = list(face_cases(images, bins, SIDE)), list(face_cases(images, masks, SIDE))
    assert [case.name for case in spread] == ["a.png", "b.jpg", "c.png"]
    np.testing.assert_array_equal(spread[0].inputs["mask"], by_stem[0].inputs["mask"])  # bin 0, its first mask
    np.testing.assert_array_equal(spread[1].inputs["mask"], by_stem[2].inputs["mask"])  # bin 1, its only mask
    np.testing.assert_array_equal(spread[2].inputs["mask"], by_stem[1].inputs["mask"])  # bin 0 again, its second
    assert len(list(face_cases(images, masks, SIDE, 2))) == 2
    (bins / "20-30").mkdir()
    with pytest.raises(UsageError, match="20-30"):
        mask_bins(bins)


def test_a_batch_gives_each_face_as_it_is_alone(narrow_bundle, faces):
    inpainter = Inpainter.from_bundle(narrow_bundle, "cpu", 2)
    together = inpainter.complete_batch(faces)
    for (pixels, hole), completed in zip(faces, together, strict=True):
        assert np.array_equal(inpainter.complete(pixels, hole), completed)
        assert np.array_equal(completed[~hole], pixels[~hole])
        assert not np.array_equal(completed[hole], pixels[hole])
