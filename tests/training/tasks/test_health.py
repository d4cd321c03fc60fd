"""What says that a refinement is alive, against plain computations; and that what is dead is found."""

import copy

import numpy as np
import pytest
import torch

from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import CATEGORIES
from showface.training.networks.memory import region_pool, region_weights
from showface.training.tasks.health import (
    HealthFaces,
    MemoryFigures,
    faults,
    health_report,
    join_ratios,
    memory_figures,
)

LEARNING = ("memory", "mrem", "refiner")


@pytest.fixture
def faces():
    """Two batches of faces with holes, their coarse faces and category maps."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(2):
        image = torch.rand(3, 3, 256, 256, generator=generator) * 2 - 1
        labels = torch.randint(14, (3, 8, 8), generator=generator)
        labels = labels.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
        mask = torch.zeros(3, 1, 256, 256)
        mask[..., 64:192, 32:200] = 1
        batches.append(HealthFaces(image, mask, image * (1 - mask), labels))
    return batches


def test_memory_figures_against_loops(narrow_model, faces):
    bank = narrow_model.memory.bank
    found = memory_figures(narrow_model, faces)
    queries, answers, truths = [], [], []
    with torch.no_grad():
        for face in faces:
            codes, _ = narrow_model.memory.codes(face.coarse_image, face.semantic_map, face.mask)
            queries.append(codes)
            answers.append(bank.read(codes))
            regions = region_weights(face.semantic_map, len(CATEGORIES))
            truths.append(region_pool(narrow_model.memory.encoder(face.image), regions))
    queries, answers, truths = (torch.cat(x).double().numpy() for x in (queries, answers, truths))
    slots, mean = bank.slots.double().numpy(), bank.mean.double().numpy()
    for k, name in enumerate(CATEGORIES):
        shown = np.abs(truths[:, k]).max(axis=1) > 0
        true, got = truths[shown, k], answers[shown, k]
        hits = set()
        for query in queries[shown, k] - mean[k]:
            centred = slots[k] - mean[k]
            hits.add(int(np.argmax(centred @ query / np.linalg.norm(centred, axis=1))))
        figures = found[name]
        assert (figures.faces, figures.hit, figures.slots) == (shown.sum(), len(hits), len(slots[k]))
        spread = ((true - true.mean(axis=0)) ** 2).sum()
        assert figures.variance == pytest.approx(((got - got.mean(axis=0)) ** 2).sum() / spread, rel=1e-4)
        assert figures.r2 == pytest.approx(1 - ((got - true) ** 2).sum() / spread, rel=1e-4)


def test_every_join_is_measured(narrow_model, faces):
    ratios = join_ratios(narrow_model, faces[0])
    assert set(ratios) == {"body.join8", "body.join4", "detail.join_body", "detail.join2", "detail.join1"}
    assert all(0.5 < ratio < 2 for ratio in ratios.values())  # both sides are normalised
    with torch.no_grad():
        before = narrow_model.refiner.body.join4.norm.weight.clone()
        narrow_model.refiner.body.join4.norm.weight.mul_(40)
        drowned = join_ratios(narrow_model, faces[0])
        narrow_model.refiner.body.join4.norm.weight.copy_(before)
    assert drowned["body.join4"] == pytest.approx(40 * ratios["body.join4"], rel=0.05)


def test_a_dead_memory_a_drowned_skip_and_a_dead_encoder_are_named():
    alive = MemoryFigures(20, 10, 128, 0.5, 0.5)
    dead = MemoryFigures(20, 1, 128, 0.0, 0.0)
    rare = MemoryFigures(3, 1, 128, 0.0, 0.0)
    assert faults({"skin": alive, "hat": rare}, {"body.join4": 1.0}, 1.0) == []
    assert faults({"skin": dead}, {}, 1.0) == ["skin: 1 of 128 slots answer 20 faces"]
    assert faults({}, {"body.join4": 364.0}, 1.0) == [
        "refiner.body.join4: the stream is 364.0 times as wide as the skip that joins it"
    ]
    assert faults({}, {"body.join4": 0.01}, 1.0)
    assert faults({}, {}, 0.01) == ["style features: their deviation is 0.010"]


def test_looking_compiles_nothing(narrow_model, faces):
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = copy.deepcopy(narrow_model)
    model.refiner.body.compile(backend=count)
    assert "body.join8" in health_report(model, faces, True, LEARNING)
    assert not compiled
    model(faces[0].image, faces[0].mask)
    assert compiled


def test_the_report_stops_a_run_that_cannot_learn(narrow_model, faces):
    text = health_report(narrow_model, faces, True, LEARNING)
    assert "skin: " in text
    assert "body.join8" in text
    assert "detail" not in health_report(narrow_model, faces, False, ("refiner.body",))
    with torch.no_grad():
        before = narrow_model.refiner.detail.join1.norm.weight.clone()
        narrow_model.refiner.detail.join1.norm.weight.mul_(100)
    try:
        with pytest.raises(ShowfaceError, match=r"not alive: refiner\.detail\.join1"):
            health_report(narrow_model, faces, False, LEARNING)
        assert health_report(narrow_model, faces, False, ("refiner.body",))
    finally:
        with torch.no_grad():
            narrow_model.refiner.detail.join1.norm.weight.copy_(before)
