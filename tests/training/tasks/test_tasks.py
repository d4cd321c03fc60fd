"""What the training stages compute around the networks."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from showface.runtime.errors import UsageError
from showface.training.config import TrainConfig
from showface.training.data.augment import Sample
from showface.training.run import loop
from showface.training.tasks.base import Task
from showface.training.tasks.parser import ParserTask
from showface.training.tasks.refinement import MdrnetTask
from showface.training.tasks.table import TASKS

CROP = (64, 32, 128)


@pytest.fixture(scope="module")
def make_task(narrow_model, narrow_checkpoint):
    """Return a function that builds the stage mdrnet around the narrow model, with the given loss weights."""

    def make(**weights):
        init = (narrow_checkpoint.name,)
        config = TrainConfig({}, {}, network=narrow_model.config, loss=weights, init=init)
        task = MdrnetTask(config, Path(), narrow_checkpoint.parent)
        task.learn()
        return task

    return make


def face(size, batch=2, seed=0):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def hole(size, batch=2):
    mask = torch.zeros(batch, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : 3 * size // 4] = 1
    return mask


def sample(image, mask, labels=None, crop=None):
    return Sample(image, mask, labels, crop, torch.ones(len(image), dtype=torch.bool))


def test_parser_sees_a_half_size_face_at_its_own_size(make_task):
    task = make_task()
    large = task.model.parser(F.interpolate(face(128), scale_factor=2.0, mode="bilinear"))
    expected = large.reshape(2, 14, 128, 2, 128, 2).mean(dim=(3, 5))
    torch.testing.assert_close(task.parse(face(128)), expected)
    assert torch.equal(task.parse(face(256, 1)), task.model.parser(face(256, 1)))


def test_crop_is_the_square_of_the_face(make_task):
    task = make_task().eval()
    with torch.no_grad():
        terms, result, target, *_ = task(sample(face(256), hole(256), crop=CROP))
    top, left, side = CROP
    assert torch.equal(target, face(256)[..., top : top + side, left : left + side])
    mask = hole(256)[..., top : top + side, left : left + side]
    assert torch.equal((result * (1 - mask)), target * (1 - mask))
    assert terms["reconstruction"].item() == pytest.approx((result - target).abs().mean().item(), rel=1e-6)


def test_face_terms_reach_the_square_only(make_task):
    task = make_task(reconstruction=0.0, semantic=1.0).eval()
    completed = []
    task.model.refiner.detail.register_forward_hook(lambda _m, _i, output: completed.append(output))
    terms, *_ = task(sample(face(256, 1), hole(256, 1), crop=CROP))
    assert set(terms) == {"semantic"}
    terms["semantic"].backward()
    assert completed[0].shape[-1] == CROP[2]
    assert task.model.refiner.detail.head.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in task.model.parser.parameters())


def test_memory_moves_in_training_only(make_task):
    task = make_task()
    before = task.model.memory.bank.slots.clone()
    with torch.no_grad():
        task.eval()(sample(face(256, 1), hole(256, 1)))
    assert torch.equal(task.model.memory.bank.slots, before)
    task.model.memory.train()
    task(sample(face(256, 1), hole(256, 1)))
    assert not torch.equal(task.model.memory.bank.slots, before)


@pytest.fixture
def parser_task(narrow_model, narrow_checkpoint):
    """Return a function that builds the stage parser on the narrow coarse network."""

    def make(share, init=True):
        names = (narrow_checkpoint.name,) if init else ()
        config = TrainConfig({}, {}, network=narrow_model.config, coarse_faces=share, init=names)
        task = ParserTask(config, Path(), narrow_checkpoint.parent)
        task.learn()
        return task

    return make


def test_the_parser_learns_on_a_share_of_coarse_faces(parser_task):
    image, mask = face(64, 200), (torch.rand(200, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    task = parser_task(0.3)
    with torch.no_grad():
        shown, coarse = task.with_coarse_faces(image, mask), task.model.coarse(image, mask)
        halves = [task.with_coarse_faces(image[part], mask[part]) for part in (slice(0, 77), slice(77, 200))]
    completed = [torch.equal(a, b) for a, b in zip(shown, coarse, strict=True)]
    untouched = [torch.equal(a, b) for a, b in zip(shown, image, strict=True)]
    assert all(a != b for a, b in zip(completed, untouched, strict=True))
    assert 0.2 < sum(completed) / 200 < 0.4
    assert [torch.equal(a, b) for a, b in zip(torch.cat(halves), image, strict=True)] == untouched
    assert torch.equal(parser_task(0.0).with_coarse_faces(image, mask), image)


def test_coarse_faces_need_a_coarse_network_and_a_share(parser_task):
    with pytest.raises(UsageError, match="init: parser needs the trained coarse"):
        parser_task(0.5, init=False)
    with pytest.raises(UsageError, match=r"coarse_faces 1\.5: give a share from 0 to 1"):
        parser_task(1.5)


@pytest.mark.parametrize("stage", [stage for stage in TASKS if TASKS[stage].terms])
def test_terms_without_weight_are_not_computed(stage, make_task, narrow_checkpoint):
    config = make_task().config
    if stage != "mdrnet":
        config = replace(config, init=())
    config = replace(config, loss={name: 0.0 for name in TASKS[stage].terms})
    task = TASKS[stage](config, Path(), narrow_checkpoint.parent)
    labels = torch.zeros(1, 256, 256, dtype=torch.long)
    with torch.no_grad():
        terms, result, target, *_ = task(sample(face(256, 1), hole(256, 1), labels))
    assert set(terms) <= {"parsing"}
    assert result.shape == target.shape == (1, 3, 256, 256)


@pytest.mark.parametrize(
    ("weights", "key"), [({"perceptual": 1.0}, "perceptual.weights"), ({"intra": 1.0}, "coordination")]
)
def test_a_term_whose_network_is_missing(weights, key, make_task):
    with pytest.raises(UsageError, match=key):
        make_task(**weights)


def test_the_loop_asks_a_stage_for_nothing_that_only_some_stages_have():
    tree = ast.parse(Path(loop.__file__).read_text("utf-8"))
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_task(node.value)}
    of_parser_alone = set(dir(ParserTask)) - set(dir(Task)) - set(Task.__annotations__)
    assert "model" in asked
    assert asked <= set(dir(ParserTask(TrainConfig({}, {}), Path(), Path()))) - of_parser_alone


def is_task(node):
    return ast.unparse(node) == "self.task"
