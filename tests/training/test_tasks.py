"""What the training stages compute around the networks."""

import torch
import torch.nn.functional as F

from showface.training.tasks import parse


def test_parser_sees_a_half_size_face_at_its_own_size(narrow_model):
    face = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = parse(narrow_model, face)
    assert labels.shape == (2, 128, 128)
    large = narrow_model.parser(F.interpolate(face, scale_factor=2.0, mode="bilinear"))
    expected = large.reshape(2, 14, 128, 2, 128, 2).mean(dim=(3, 5)).argmax(dim=1)
    assert torch.equal(labels, expected)


def test_parser_sees_a_full_size_face_as_it_is(narrow_model):
    face = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(parse(narrow_model, face), narrow_model.parser(face).argmax(dim=1))
