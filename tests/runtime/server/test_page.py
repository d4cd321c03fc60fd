"""The page in Debian's Chromium: paint, complete, compare, save; with the mouse, by keyboard and by touch."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

NARROW = {"width": 390, "height": 844}


def choose(page, name, data, selector="#choose"):
    page.set_input_files(selector, {"name": name, "mimeType": "image/png", "buffer": data})


def saved(page, selector):
    """Return the name and the pixels of what a button saves."""
    with page.expect_download() as download:
        page.click(selector)
    with open(download.value.path(), "rb") as file:
        return download.value.suggested_filename, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))


def hole_of(page):
    return saved(page, "#save-mask")[1][..., 0] > 127


def stroke(page, *points):
    """Draw with the mouse; ``points`` are fractions of the painting area."""
    box = page.locator("#mask").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def finish(page):
    page.click("#complete")
    page.wait_for_selector("#after:not([hidden])")


def test_what_is_painted_is_completed_and_nothing_else(open_page, faces, encode, tmp_path, narrow_bundle):
    face = faces[0][0]
    page = open_page()
    choose(page, "someone.new.png", encode(face))
    page.wait_for_selector("#painting:enabled")
    assert page.is_disabled("#complete")
    assert page.is_hidden("#find")  # this bundle has no occluder
    stroke(page, (0.3, 0.5), (0.5, 0.7), (0.6, 0.4))
    name, mask = saved(page, "#save-mask")
    hole = mask[..., 0] > 127
    assert name == "someone.new.png"  # the stem of the photograph, by which --masks finds it
    assert set(np.unique(mask)) == {0, 255}
    assert 0.01 < hole.mean() < 0.3
    finish(page)
    name, completed = saved(page, "#save")
    assert name == "someone.new-completed.png"
    np.testing.assert_array_equal(completed[~hole], face[~hole])
    assert (completed[hole] != face[hole]).any(axis=-1).mean() > 0.9

    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "in" / "someone.new.png").write_bytes(encode(face))
    (tmp_path / "masks" / "someone.new.png").write_bytes(encode(hole))
    command = [sys.executable, "-m", "showface.cli", "--threads", "1", "inpaint", "in", "out", "--masks", "masks"]
    subprocess.run([*command, "--bundle", narrow_bundle, "--device", "cpu"], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "someone.new.png")), completed)


def test_eraser_undo_clear_and_size_change_the_hole(open_page, faces, encode):
    page = open_page()
    choose(page, "a.png", encode(faces[0][0]))
    page.wait_for_selector("#painting:enabled")
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    line = hole_of(page)
    assert np.flatnonzero(line.any(axis=1)).size == pytest.approx(0.1 * 256, abs=2)  # the brush is 10 % wide
    page.check("[value=eraser]", force=True)
    stroke(page, (0.5, 0.3), (0.5, 0.7))
    erased = hole_of(page)
    assert not (erased & ~line).any()
    assert not erased[128, 128]
    assert erased[128, 70]
    page.click("#undo")
    np.testing.assert_array_equal(hole_of(page), line)
    page.check("[value=brush]", force=True)
    page.fill("#size", "30")
    stroke(page, (0.5, 0.5), (0.5, 0.5))
    wide = hole_of(page)
    assert np.flatnonzero(wide.any(axis=1)).size == pytest.approx(0.3 * 256, abs=2)
    page.click("#clear")
    assert page.is_disabled("#complete")
    assert page.is_disabled("#save-mask")
    choose(page, "mask.png", encode(wide), "#load-mask")
    page.wait_for_selector("#save-mask:enabled")
    np.testing.assert_array_equal(hole_of(page), wide)


def test_the_slider_compares_and_editing_goes_on_with_the_result(open_page, faces, encode):
    page = open_page()
    choose(page, "a.png", encode(faces[0][0]))
    page.wait_for_selector("#painting:enabled")
    stroke(page, (0.3, 0.3), (0.4, 0.4))
    first = hole_of(page)
    finish(page)
    assert page.evaluate("document.activeElement.id") == "divider"
    page.keyboard.press("End")
    assert page.evaluate("getComputedStyle(document.getElementById('after')).clipPath") == "inset(0px 0px 0px 100%)"
    _, before = saved(page, "#save")
    page.click("#show-stages")
    page.wait_for_selector("#stages:not([hidden])")
    assert page.locator("#figures img").count() == 4
    assert page.locator("#legend li").count() == 14
    page.click("#go-on")
    page.wait_for_selector("#mask:not([hidden])")
    stroke(page, (0.7, 0.7), (0.8, 0.8))
    second = hole_of(page)
    assert not (first & second).any()
    finish(page)
    _, after = saved(page, "#save")
    np.testing.assert_array_equal(after[~second], before[~second])
    page.click("#back")
    np.testing.assert_array_equal(hole_of(page), second)


def test_everything_can_be_done_by_keyboard(open_page):
    page = open_page()
    page.locator("[data-example='1']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#complete:enabled")
    page.click("#clear")
    page.locator("#mask").focus()
    for key in ("ArrowUp", "+", "+", " ", "ArrowLeft", "ArrowLeft", "ArrowLeft", " ", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    hole = hole_of(page)
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    assert rows.size == pytest.approx(0.12 * 256, abs=2)  # the line went left; down the brush was lifted
    assert columns.size == pytest.approx((0.12 + 0.09) * 256, abs=3)
    page.locator("#mask").focus()
    page.keyboard.press("Control+z")
    assert page.is_disabled("#complete")
    page.keyboard.press(" ")
    page.keyboard.press(" ")
    page.locator("#complete").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#after:not([hidden])")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_screen_needs_no_sideways_scrolling_and_a_finger_paints(open_page, scheme):
    page = open_page(NARROW, has_touch=True, is_mobile=True, color_scheme=scheme)
    page.tap("[data-example='3']")
    page.wait_for_selector("#complete:enabled")
    page.tap("#clear")
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert hole_of(page)[128, 128]
    finish(page)
    page.tap("#show-stages")
    page.wait_for_selector("#stages:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    touched = "[...document.querySelectorAll('button, .button, .choice')].map(e => [e.textContent, e.offsetHeight])"
    assert [text for text, height in page.evaluate(touched) if 0 < height < 44] == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, light[4:-1].split(","))) > 384) == (scheme == "light")


def test_a_picture_that_is_not_square_is_cropped(open_page, faces, encode):
    page = open_page()
    face = faces[0][0]
    choose(page, "tall.png", encode(np.vstack([face, face[::-1]])))
    page.wait_for_selector("#crop:not([hidden])")
    page.fill("#crop-y", "0")
    page.wait_for_selector("#painting:enabled")
    stroke(page, (0.5, 0.5), (0.6, 0.6))
    hole = hole_of(page)
    finish(page)
    completed = saved(page, "#save")[1]
    np.testing.assert_array_equal(completed[~hole], face[~hole])


def test_what_goes_wrong_is_said_in_a_sentence(open_page, faces, encode, server):
    page = open_page()
    choose(page, "<b>letter</b>.txt", b"hello")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("<b>letter</b>.txt cannot be shown by this browser; choose")
    choose(page, "a.png", encode(faces[0][0]))
    page.wait_for_selector("#painting:enabled")
    choose(page, "mask.png", encode(np.ones((20, 40), bool)), "#load-mask")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "A mask of 40×20 does not fit a square picture."
    stroke(page, (0.5, 0.5), (0.6, 0.6))
    page.route("**/inpaint", lambda route: route.fulfill(status=503, json={"error": "the server is busy; wait 2 s"}))
    page.click("#complete")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "The server is busy; wait 2 s."
    assert page.is_enabled("#complete")


def test_the_covered_example_is_to_be_painted_where_nothing_finds_the_hole(open_page):
    page = open_page()
    page.click("[data-example='4']")
    page.locator("#status", has_text="Paint over what covers it.").wait_for()
    assert page.is_hidden("#find")
