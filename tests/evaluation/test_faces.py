"""Real faces as inputs of the chain: paired by stem, in name order, at the bundle's own size."""

import numpy as np
import pytest
from PIL import Image

from showface.evaluation.faces import real_faces
from showface.runtime.errors import InputError, UsageError


@pytest.mark.parametrize("size", [64, 128, 256])
def test_samples_have_the_side_that_was_asked_for(face_folder, size):
    image, mask = real_faces(*face_folder, size)
    assert (image.shape, image.dtype) == ((3, 3, size, size), np.float32)
    assert (mask.shape, mask.dtype) == ((3, 1, size, size), np.float32)


def test_samples_are_the_faces_in_name_order(face_folder, faces):
    image, mask = real_faces(*face_folder, 256)
    for i in (0, 2):  # 1 is a JPEG
        pixels, hole = faces[i]
        np.testing.assert_array_equal(mask[i, 0] == 1, hole)
        known = pixels[~hole] / 127.5 - 1
        np.testing.assert_allclose(image[i].transpose(1, 2, 0)[~hole], known, atol=1e-6)
    np.testing.assert_array_equal(mask[1, 0] == 1, faces[1][1])


def test_the_working_directory_may_be_the_input(face_folder, monkeypatch):
    images, masks = face_folder
    expected = real_faces(images, masks, 64)
    monkeypatch.chdir(images)
    here = type(images)()
    for ours, theirs in zip(real_faces(here, masks, 64), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_masks_inside_the_images_are_no_samples(face_folder):
    images, masks = face_folder
    inside = images / "masks"
    masks.rename(inside)
    assert len(real_faces(images, inside, 64)[0]) == 3


def test_what_is_missing_is_named(face_folder, tmp_path):
    images, masks = face_folder
    with pytest.raises(UsageError, match="faces need masks"):
        real_faces(images, None, 256)
    with pytest.raises(UsageError, match="nowhere: no such file"):
        real_faces(tmp_path / "nowhere", masks, 256)
    Image.new("L", (200, 256)).save(masks / "c.png")
    with pytest.raises(InputError, match=r"c\.png.*does not fit"):
        real_faces(images, masks, 256)
