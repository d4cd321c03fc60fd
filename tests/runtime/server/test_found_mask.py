"""A server whose bundle has an occluder, which is green here: no mask need be sent, and the page finds the hole."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from showface.runtime import Inpainter


@pytest.fixture(scope="module")
def server(start, green_bundle):
    with start("--bundle", green_bundle) as running:  # the last --bundle counts
        yield running


@pytest.fixture(scope="module")
def covered(faces):
    """Return a face with a green block on its mouth."""
    face = faces[0][0].copy()
    face[140:200, 80:176] = (30, 200, 40)
    return face


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_covers_a_face_is_found_and_completed(server, covered, green_bundle, encode):
    reply = server.post("/mask", image=encode(covered))
    note = json.loads(reply.headers["Showface-Mask"])
    hole = pixels(reply.content)
    assert (reply.headers["content-type"], hole.shape, set(np.unique(hole))) == ("image/png", (256, 256), {0, 255})
    hole = hole > 127
    assert hole[140:200, 80:176].all()
    assert hole.mean() < 0.2
    assert (note["from"], note["parts"]) == ("occlusion", 1)
    assert note["area"] == pytest.approx(hole.mean(), abs=0.01)
    for data in (None, {"mask_from": "occlusion"}):
        done = server.post(image=encode(covered), data=data)
        expected = Inpainter.from_bundle(green_bundle, "cpu", 1).complete(covered, hole)
        np.testing.assert_array_equal(pixels(done.content), expected)
        assert json.loads(done.headers["Showface-Mask"]) == note
    assert server.client.get("/health").json()["finds_occlusions"] is True


def test_where_nothing_covers_a_face_it_comes_back_and_the_note_says_so(server, faces, encode):
    reply = server.post(image=encode(faces[0][0]))
    np.testing.assert_array_equal(pixels(reply.content), faces[0][0])
    assert json.loads(reply.headers["Showface-Mask"])["parts"] == 0


def test_a_mask_that_was_sent_comes_back_as_it_is_read(server, faces, encode):
    face, hole = faces[1]
    reply = server.post("/mask", image=encode(face), mask=encode(hole))
    np.testing.assert_array_equal(pixels(reply.content) > 127, hole)
    assert "Showface-Mask" not in reply.headers


def test_the_page_finds_the_hole(open_page, covered, faces, encode):
    page = open_page()
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encode(covered)}
    page.set_input_files("#choose", picture)
    page.wait_for_selector("#find:enabled")
    page.click("#find")
    page.wait_for_selector("#complete:enabled")
    assert page.inner_text("#status").startswith("Found what covers ")
    page.click("#complete")
    page.wait_for_selector("#after:not([hidden])")
    page.set_input_files("#choose", {**picture, "buffer": encode(faces[0][0])})
    page.wait_for_selector("#find:enabled")
    page.click("#find")
    page.locator("#status", has_text="Nothing was found").wait_for()
    assert page.is_disabled("#complete")


def test_the_covered_example_comes_without_a_hole(open_page):
    page = open_page()
    page.click("[data-example='4']")
    page.wait_for_selector("#find:enabled")
    page.locator("#status", has_text="Find what covers it").wait_for()
    assert page.is_disabled("#complete")
