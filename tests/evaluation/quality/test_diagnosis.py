"""What the diagnosis says of a model's parts, against plain computations."""

import copy
import json
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

from showface.evaluation.faces import pair_files, read_pair
from showface.evaluation.quality.diagnosis import OTHER_GUIDANCE, diagnose, diagnosis_table
from showface.evaluation.quality.evaluate import evaluate
from showface.evaluation.quality.methods import model_method
from showface.runtime.faces.tensors import prepare
from showface.training.checkpoint import model_from_checkpoint
from showface.training.config import MemoryConfig
from showface.training.data.labels import read_label_map
from showface.training.tasks.health import HealthFaces, join_ratios, memory_figures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def labelled(evaluation_set, tmp_path_factory):
    """Label maps for the two faces of the evaluation set."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(1)
    for i in range(2):
        labels = rng.integers(0, 19, (8, 8), np.uint8).repeat(32, axis=0).repeat(32, axis=1)
        cv2.imwrite(str(folder / f"{i}.png"), labels)
    return evaluation_set.images, folder


@pytest.fixture(scope="module")
def found(narrow_model, evaluation_set, labelled):
    return diagnose(narrow_model, CPU, evaluation_set, labelled=labelled, holdout_every=1)


def test_quality_of_each_part(found, narrow_model, evaluation_set):
    """The coarse face is what a silent refiner returns."""
    silent = copy.deepcopy(narrow_model)
    with torch.no_grad():
        for head in (silent.refiner.body.head, silent.refiner.detail.head):
            head.gain.zero_()
    for name, model in (("coarse", silent), ("whole", narrow_model)):
        assert found.quality[name] == evaluate(model_method(model, CPU), evaluation_set).buckets
    assert found.quality["coarse"] != found.quality["whole"] != found.quality[OTHER_GUIDANCE]


def test_memory_and_joins_are_those_of_the_largest_holes(found, narrow_model, evaluation_set):
    faces = []
    for pair in pair_files(evaluation_set.images, evaluation_set.masks, "40-60"):
        face = read_pair(pair)
        image, mask = (torch.from_numpy(a[None]) for a in prepare(face.rgb, face.hole, 256, "face"))
        whole = torch.from_numpy(face.rgb.transpose(2, 0, 1)[None]).float() / 127.5 - 1
        with torch.no_grad():
            coarse_image = narrow_model.coarse(image, mask)
            faces.append(HealthFaces(whole, mask, coarse_image, narrow_model.parser(coarse_image).argmax(dim=1)))
    expected = memory_figures(narrow_model, faces)
    assert found.memory.keys() == expected.keys()
    for name, block in expected.items():
        assert (found.memory[name].faces, found.memory[name].hit) == (block.faces, block.hit)
        assert (found.memory[name].r2 is None) == (block.r2 is None)
        assert block.r2 is None or found.memory[name].r2 == pytest.approx(block.r2, rel=1e-3)
    assert found.joins == pytest.approx(join_ratios(narrow_model, _joined(faces)), rel=1e-4)


def _joined(faces):
    return HealthFaces(*(torch.cat([getattr(face, f.name) for face in faces]) for f in fields(HealthFaces)))


def test_the_residual_is_correlated_with_the_error(found, narrow_model, evaluation_set):
    added, lacking = [], []
    for pair in pair_files(evaluation_set.images, evaluation_set.masks, "20-40"):
        face = read_pair(pair)
        image, mask = (torch.from_numpy(a[None]) for a in prepare(face.rgb, face.hole, 256, "face"))
        whole = face.rgb.transpose(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            coarse, completed = narrow_model.coarse(image, mask).numpy(), narrow_model(image, mask).numpy()
        hole = np.broadcast_to(mask.numpy() > 0, coarse.shape)
        added.append((completed - coarse)[hole])
        lacking.append((whole - coarse)[hole])
    expected = np.corrcoef(np.concatenate(added), np.concatenate(lacking))[0, 1]
    assert found.residual["20-40"] == pytest.approx(expected, abs=1e-4)


def test_the_parser_sees_photographs_and_coarse_faces(found, narrow_model, evaluation_set, labelled):
    pairs = pair_files(evaluation_set.images, evaluation_set.masks, "40-60")
    for name, hidden in (("photographs", False), ("coarse faces", True)):
        truth, guess = [], []
        for pair in pairs:
            face = read_pair(pair)
            truth.append(read_label_map(labelled[1] / f"{pair.image.stem}.png", 256))
            image, mask = (torch.from_numpy(a[None]) for a in prepare(face.rgb, face.hole & hidden, 256, "face"))
            with torch.no_grad():
                image = narrow_model.coarse(image, mask) if hidden else image
                guess.append(narrow_model.parser(image).argmax(dim=1)[0].numpy())
        a, b = np.stack(truth), np.stack(guess)
        both = [((a == i) & (b == i)).sum() for i in range(14)]
        either = [((a == i) | (b == i)).sum() for i in range(14)]
        expected = [x / y for x, y in zip(both, either, strict=True) if y]
        assert found.parser[name].mean == pytest.approx(np.mean(expected))


def test_a_shared_memory_is_one_block(evaluation_set, make_checkpoint, tmp_path):

    memory = MemoryConfig(kind="shared", channels=16, slots=8, encoder_width=8)
    model = model_from_checkpoint(make_checkpoint(tmp_path / "shared.safetensors", memory=memory))[0]
    block = diagnose(model, CPU, replace(evaluation_set, limit=1)).memory
    assert block.keys() == {"all"}
    assert 1 <= block["all"].hit <= block["all"].slots == 14 * 8


def test_json_and_table_say_the_same(found):
    document = json.loads(found.to_json())
    table = diagnosis_table(found)
    assert f"{document['quality']['whole']['40-60']['psnr']:.3f}" in table
    nose = document["memory"]["nose"]
    assert f"| nose | {nose['faces']} | {nose['hit']} of {nose['slots']} |" in table
    assert f"body.join4 {document['joins']['body.join4']:.2f}" in table
    assert f"40-60% {document['residual']['40-60']:.3f}" in table
    assert f"mean IoU {document['parser']['coarse faces']['mean']:.3f}" in table


def test_the_verb_writes_the_figures(showface, narrow_checkpoint, evaluation_set, labelled, tmp_path):
    places = ("--images", evaluation_set.images, "--masks", evaluation_set.masks, "--limit", 1)
    command = ("diagnose", narrow_checkpoint, *places)
    half = showface(*command, "--labelled", "x")
    assert (half.returncode, half.stderr) == (2, "error: --labelled and --labels go together\n")
    options = ("--labelled", labelled[0], "--labels", labelled[1], "--json", tmp_path / "found.json")
    whole = showface(*command, *options)
    assert whole.returncode == 0, whole.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["quality"]["whole"]["1-20"]["images"] == 1
    assert f"{found['quality'][OTHER_GUIDANCE]['40-60']['psnr']:.3f}" in whole.stdout
