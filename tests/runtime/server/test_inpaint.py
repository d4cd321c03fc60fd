"""``POST /inpaint`` and ``/stages`` of a real server: the pictures are those of ``showface inpaint``."""

import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from showface.runtime.faces.category_mask import category_region, region_of_square
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import decode_photo
from showface.runtime.stages import CATEGORIES, STAGES


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_reply_is_bit_by_bit_what_the_inpainter_makes(server, faces, inpainter, encode):
    for face, hole in faces:
        reply = server.post(image=encode(face), mask=encode(hole))
        assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
        completed = pixels_of(reply.content)
        np.testing.assert_array_equal(completed, inpainter.complete(face, hole))
        np.testing.assert_array_equal(completed[~hole], face[~hole])
        assert (completed[hole] != face[hole]).any()


def test_sixteen_bits_and_the_size_are_kept(server, faces, inpainter):
    face, hole = faces[0]
    deep = cv2.resize(face, (500, 500)).astype(np.uint16) * 257
    wide = cv2.resize(hole.astype(np.uint8), (500, 500), interpolation=cv2.INTER_NEAREST).astype(bool)
    image = bytes(cv2.imencode(".png", deep[..., ::-1])[1])
    reply = server.post(image=image, mask=bytes(cv2.imencode(".png", wide.astype(np.uint8) * 255)[1]))
    completed = decode_photo(reply.content, "reply").pixels
    assert completed.dtype == np.uint16
    np.testing.assert_array_equal(completed, inpainter.complete(deep, wide))


@pytest.mark.parametrize(
    ("kind", "asked", "media"),
    [
        ("JPEG", None, "image/jpeg"), ("WEBP", None, "image/webp"), ("TIFF", None, "image/tiff"),
        ("BMP", None, "image/bmp"),
        ("JPEG", "png", "image/png"), ("PNG", "jpeg", "image/jpeg"), ("PNG", "same", "image/png"),
    ],
)  # fmt: skip
def test_the_format_is_that_of_the_picture_or_the_one_asked_for(server, faces, encode, kind, asked, media):
    face, hole = faces[2]
    data = None if asked is None else {"format": asked}
    reply = server.post(data=data, image=encode(face, kind), mask=encode(hole))
    assert (reply.status_code, reply.headers["content-type"]) == (200, media)
    assert Image.open(io.BytesIO(reply.content)).get_format_mimetype() == media


def test_a_profile_travels_and_the_orientation_is_applied(server, faces, encode):
    face, hole = faces[2]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    profile = bytes(16) + b"RGB " + bytes(108)
    reply = server.post(image=encode(face, exif=exif, icc_profile=profile), mask=encode(hole))
    turned = np.rot90(face, -1)
    picture = Image.open(io.BytesIO(reply.content))
    assert picture.info["icc_profile"] == profile
    np.testing.assert_array_equal(np.asarray(picture)[~hole], turned[~hole])


def test_an_empty_hole_gives_the_picture_back(server, faces, encode):
    face = faces[0][0]
    reply = server.post(image=encode(face), mask=encode(np.zeros((256, 256), bool)))
    np.testing.assert_array_equal(pixels_of(reply.content), face)


def test_the_hole_may_come_from_the_alpha_channel(server, faces, inpainter, encode):
    face, hole = faces[1]
    image = np.dstack([face, np.where(hole, 0, 255).astype(np.uint8)])
    reply = server.post(data={"mask_from": "alpha"}, image=encode(image))
    completed = pixels_of(reply.content)
    np.testing.assert_array_equal(completed, inpainter.complete(image, hole, opaque=True))
    assert (completed[..., 3] == 255).all()


def test_the_hole_may_come_from_a_key_colour(server, faces, inpainter, encode):
    face, hole = faces[1]
    image = np.where(hole[..., None], np.uint8([0, 255, 0]), face).astype(np.uint8)
    reply = server.post(data={"mask_from": "color:#00ff00"}, image=encode(image))
    np.testing.assert_array_equal(pixels_of(reply.content), inpainter.complete(image, hole))


def test_the_hole_may_be_what_the_parser_finds(server, faces, inpainter, encode):
    face = faces[0][0]
    image, _ = prepare(face, np.zeros((256, 256), bool), 256, "face")
    labels = inpainter.parse(image[None])[0]
    name = CATEGORIES[np.bincount(labels.ravel()).argmax()]
    hole = region_of_square(category_region(labels, (name,), 6, 0.003)[0], 256)
    assert hole.any()
    reply = server.post(data={"mask_from": f"class:{name}"}, image=encode(face))
    np.testing.assert_array_equal(pixels_of(reply.content), inpainter.complete(face, hole))


def test_the_stages_come_as_pictures_of_the_table(server, faces, inpainter, encode):
    face, hole = faces[0]
    reply = server.post("/stages", image=encode(face), mask=encode(hole)).json()
    assert [entry["stage"] for entry in reply["stages"]] == ["coarse", "parser", "mrem", "refiner"]
    assert {entry["tensor"] for entry in reply["stages"]} <= {name for stage in STAGES for name in stage.outputs}
    assert [entry["name"] for entry in reply["categories"]] == list(CATEGORIES)
    pictures = {}
    for entry in reply["stages"]:
        head, _, data = entry["picture"].partition(",")
        assert head == "data:image/png;base64"
        pictures[entry["tensor"]] = pixels_of(base64.b64decode(data))
    image, mask = prepare(face, hole, 256, "face")
    tensors = inpainter.chain.run({"image": image[None], "mask": mask[None]})
    for name in ("coarse_image", "completed_image"):
        expected = np.rint((tensors[name][0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255)
        np.testing.assert_allclose(pictures[name], expected, atol=1)
    colors = {entry["name"]: entry["color"] for entry in reply["categories"]}
    label, row, column = int(tensors["semantic_map"][0, 40, 90]), 40, 90
    assert bytes(pictures["semantic_map"][row, column]).hex() == colors[CATEGORIES[label]][1:]
    assert len(set(colors.values())) == len(CATEGORIES)
    assert pictures["guidance"].shape == (64, 64, 3)
    assert pictures["guidance"].std() > 10
