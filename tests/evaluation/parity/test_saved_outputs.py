"""Saved outputs are a side like any other; what is broken or foreign is refused."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from showface.evaluation.parity.cases import Case, array_cases, generated_cases
from showface.evaluation.parity.compare import compare_sources
from showface.evaluation.parity.saved_outputs import OUTPUTS_FILE, open_outputs, save_outputs
from showface.evaluation.parity.sources import ChainSource
from showface.evaluation.parity.tolerances import plan_tolerances
from showface.runtime.backends.chain import Chain
from showface.runtime.errors import UsageError
from showface.runtime.stages import STAGES

PRECISION = {stage.name: "float32" for stage in STAGES}
TABLE = plan_tolerances(PRECISION, None, {})


@pytest.fixture(scope="module")
def origin(narrow_source, chain_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "saved"
    cases = [*array_cases(chain_inputs[0][:2], chain_inputs[1][:2], "face")]
    cases.append(next(c for c in generated_cases(*chain_inputs, 1) if c.given))
    with save_outputs(folder, narrow_source.identity) as writer:
        for case in cases:
            writer.add(case, narrow_source.chain(case))
    return folder


@pytest.fixture
def saved(origin, tmp_path):
    """Return a folder of saved outputs of two faces and a case with labels that were given, to be changed."""
    return shutil.copytree(origin, tmp_path / "saved")


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
    with pytest.raises(UsageError, match="exists already"), save_outputs(saved, narrow_source.identity):
        pass


def test_a_saved_file_without_arrays_is_refused(saved):
    (saved / "00000.npz").write_bytes(b"PK no archive")
    digest = hashlib.sha256(b"PK no archive").hexdigest()
    edit_list(saved, lambda data: data["cases"][0].update(sha256=digest))
    with pytest.raises(UsageError, match=r"00000\.npz: holds no arrays"):
        list(open_outputs(saved).cases())


@pytest.mark.parametrize(("name", "value"), [("image", np.nan), ("image", 2.0), ("mask", 0.5)])
def test_saved_inputs_that_no_face_gives_are_refused(saved, name, value):
    tensors = dict(np.load(saved / "00000.npz"))
    tensors[name].flat[5] = value
    np.savez(saved / "00000.npz", **tensors)
    digest = hashlib.sha256((saved / "00000.npz").read_bytes()).hexdigest()
    edit_list(saved, lambda data: data["cases"][0].update(sha256=digest))
    with pytest.raises(UsageError, match=rf"00000\.npz: no outputs of a face: {name} holds"):
        list(open_outputs(saved).cases())


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
    with pytest.raises(RuntimeError), save_outputs(tmp_path / "out", narrow_source.identity):
        raise RuntimeError("the device was unplugged")
    assert list(tmp_path.iterdir()) == []
