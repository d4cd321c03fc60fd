"""Faces as they come: the template, what is cut out, what is written back, and what stays as it was."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.transform import SimilarityTransform

from showface.runtime.batch.item import Item
from showface.runtime.batch.options import Alignment, Options
from showface.runtime.batch.read_input import InputReader
from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.align import TEMPLATE, blend, cut_out, owners, picture_map, square_of
from showface.runtime.faces.category_mask import add_region
from showface.runtime.faces.landmarks import read_landmarks, yunet
from showface.runtime.faces.masks import MaskSource, list_masks
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import decode_photo
from showface.runtime.inpainter import Inpainter
from showface.runtime.stages import CATEGORIES

DATA = Path(os.environ.get("SHOWFACE_DATA", Path(__file__).parents[4] / "shared" / "data"))
YUNET = DATA / "weights" / "yunet_n_dynamic.onnx"
# Of skimage's astronaut, 512×512, by hand: right eye, left eye, nose, corners of the mouth.
ASTRONAUT = np.asarray([(203.0, 100.5), (246.0, 103.5), (224.0, 126.0), (203.0, 140.0), (244.0, 141.0)])


def placed(angle, scale, x, y):
    """Return the template's landmarks turned by ``angle`` degrees, at ``scale`` pixels a side, around (x, y)."""
    turn = np.deg2rad(angle)
    rotation = np.asarray([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    return (TEMPLATE - 0.5) @ rotation.T * scale + (x, y)


def picture(shape, seed=0):
    """Return smooth colours, so that a warp there and back is near the original."""
    random = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(random, shape[1::-1], interpolation=cv2.INTER_CUBIC)


def as_completed(pixels, size=256):
    """Return what networks that copy their input would return: [3, size, size] in [-1, 1]."""
    small = cv2.resize(pixels[..., :3], (size, size), interpolation=cv2.INTER_AREA)
    return (small.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_square_is_the_best_similarity(seed):
    random = np.random.default_rng(seed)
    landmarks = placed(random.uniform(-90, 90), 200, 300, 250) + random.normal(0, 5, (5, 2))
    square = square_of(landmarks, (1000, 1000), "x")
    reference = SimilarityTransform.from_estimate(TEMPLATE, landmarks)
    np.testing.assert_allclose(square.to_picture, reference.params[:2], atol=1e-8)
    assert square.side == pytest.approx(reference.scale)


@pytest.mark.parametrize(("shape", "side"), [((100, 300), 1201), ((100, 300), 1e9), ((9000, 9000), 20001)])
def test_landmarks_too_far_apart_are_no_face_of_the_picture(shape, side):
    with pytest.raises(InputError, match=rf"x: .*too large for a picture of {shape[1]}×{shape[0]}"):
        square_of(placed(0, side, 50, 50), shape, "x")
    assert square_of(placed(0, 1199, 50, 50), (100, 300), "x").side == pytest.approx(1199)


def test_landmarks_in_one_point_are_no_face():
    with pytest.raises(InputError, match="too small"):
        square_of(np.full((5, 2), 7.0), (1000, 1000), "x")


def test_what_is_cut_out_has_its_landmarks_at_the_template():
    landmarks = placed(30, 400, 500, 450)
    square = square_of(landmarks, (1000, 1000), "x")
    for (x, y), expected in zip(landmarks, TEMPLATE * 512, strict=True):
        pixels = np.zeros((900, 1000, 3), np.uint8)
        cv2.circle(pixels, (round(x), round(y)), 6, (255,) * 3, -1)
        cut, _ = cut_out(pixels, np.zeros((900, 1000), np.bool_), square, 256)
        assert cut.shape == (512, 512, 3)
        rows, columns = np.nonzero(cut[..., 0] > 127)
        assert np.abs([columns.mean() - expected[0], rows.mean() - expected[1]]).max() < 1.5  # drawn at whole pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_there_and_back_again(dtype, channels):
    pixels = picture((700, 800)).astype(dtype) * (1 if dtype == np.uint8 else 257)
    pixels = {1: pixels[..., 0], 3: pixels, 4: np.dstack([pixels, pixels[..., 0]])}[channels]
    hole = np.zeros((700, 800), np.bool_)
    hole[300:380, 320:460] = True
    square = square_of(placed(-20, 330, 400, 350), (1000, 1000), "x")
    cut, _ = cut_out(pixels, np.zeros_like(hole), square, 256)
    eight = cut if dtype == np.uint8 else (cut // 257).astype(np.uint8)
    completed = as_completed(np.repeat(eight[..., None], 3, axis=2) if channels == 1 else eight)
    result = pixels.copy()
    result[hole] = 0  # the occluder
    before = result.copy()
    blend(result, hole, owners([square], hole) == 0, square, completed, opaque=False)
    np.testing.assert_array_equal(result[~hole], before[~hole])
    scale = np.iinfo(dtype).max / 255
    colors = slice(None) if channels == 1 else slice(3)
    error = np.abs(result[hole].astype(float) - pixels[hole])[..., colors] / scale
    assert error.mean() < 1.5
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], before[..., 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channel_by_channel_is_bit_identical_to_all_at_once(dtype, channels):
    """In little memory comes out what the formulas over whole arrays give."""
    random = np.random.default_rng(channels)
    pixels = random.integers(0, np.iinfo(dtype).max, (500, 600, channels), dtype, endpoint=True)
    pixels = pixels[..., 0] if channels == 1 else pixels
    hole = random.random((500, 600)) < 0.001
    hole[150:330, 200:380] = True
    square = square_of(placed(-20, 400, 300, 250), (1000, 1000), "x")
    mine = owners([square], hole) == 0
    completed = random.uniform(-1.1, 1.1, (3, 256, 256)).astype(np.float32)

    top, radius = np.iinfo(dtype).max, round(2.5 / 256 * square.side)
    ys, xs = np.nonzero(mine)
    y, x = max(0, ys.min() - 2 * radius), max(0, xs.min() - 2 * radius)
    part = slice(y, ys.max() + 2 * radius + 1), slice(x, xs.max() + 2 * radius + 1)
    unknown = hole[part]
    matrix = picture_map(square, 256)
    matrix[:, 2] -= (x, y)
    face = np.ascontiguousarray(completed.transpose(1, 2, 0))
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    values = (cv2.warpAffine(face, matrix, unknown.shape[::-1], **flags) + 1.0) * (top / 2.0)
    colors = (pixels[..., None] if channels == 1 else pixels[..., :3])[part]
    if channels == 1:
        values = (np.multiply(values, np.asarray([0.299, 0.587, 0.114], np.float32)).sum(axis=-1))[..., None]
    known, window = (~unknown).astype(np.float32), (2 * radius + 1,) * 2
    weight = cv2.blur(known, window)[..., None]
    continued = cv2.blur(colors.astype(np.float32) * known[..., None], window).reshape(colors.shape)
    distance = cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 3)[..., None]
    alpha = np.where(weight > 0, np.clip(distance / (radius + 1), 0.0, 1.0), 1.0)
    mixed = np.rint(alpha * values + (1.0 - alpha) * (continued / np.maximum(weight, 1e-6))).clip(0, top)

    result = pixels.copy()
    blend(result, hole, mine, square, completed, opaque=False)
    written = (result[..., None] if channels == 1 else result[..., :3])[part]
    np.testing.assert_array_equal(written[mine[part]], mixed[mine[part]])
    np.testing.assert_array_equal(result[~mine], pixels[~mine])


def test_the_seam_fades_from_the_known_pixels_and_never_from_the_occluder():
    hole = np.zeros((400, 400), np.bool_)
    hole[150:250, 150:250] = True
    square = square_of(placed(0, 380, 200, 200), (1000, 1000), "x")
    result = np.full((400, 400, 3), 100, np.uint8)
    result[hole] = (255, 0, 0)  # the occluder, far from both
    blend(result, hole, hole, square, np.full((3, 256, 256), 140 / 127.5 - 1, np.float32), opaque=False)
    assert result[hole].min() >= 99
    assert result[hole].max() <= 141
    row = result[200, 145:170, 1].astype(int)
    assert np.diff(row).max() < 20  # without a seam it would be one step of 40
    assert result[200, 200, 1] == 140


def test_each_face_completes_its_own_part_of_the_hole():
    hole = np.zeros((400, 800), np.bool_)
    hole[180:220, 100:700] = True
    squares = [square_of(placed(0, 360, x, 200), (1000, 1000), "x") for x in (220, 560)]
    owner = owners(squares, hole)
    assert (owner[~hole] == -1).all()
    assert set(np.unique(owner[hole])) == {0, 1}
    assert (owner[200, 100:380] == 0).all()
    assert (owner[200, 400:700] == 1).all()


def test_what_lies_outside_the_picture_mirrors_its_hole_too():
    hole = np.zeros((200, 200), np.bool_)
    hole[:, :3] = True
    _, covered = cut_out(picture((200, 200)), hole, square_of(placed(0, 200, 60, 100), (1000, 1000), "x"), 256)
    assert covered[128, 40:55].any()
    assert covered[:, :20].sum() == 0


def test_what_the_parser_sees_in_a_face_is_hole_where_the_face_is(narrow_bundle, tmp_path):
    inpainter = Inpainter.from_bundle(narrow_bundle, "cpu", 1)
    pixels, nothing = skimage.data.astronaut(), np.zeros((512, 512), np.bool_)
    cut, hidden = cut_out(pixels, nothing, square_of(ASTRONAUT, pixels.shape, "x"), 256)
    seen = inpainter.parse(prepare(cut, hidden, 256, "x")[0][None])[0]
    index = np.bincount(seen.ravel()).argmax()
    Image.fromarray(pixels).save(tmp_path / "one.png")
    options = Options(MaskSource("class", categories=(CATEGORIES[index],), margin=0), alignment=Alignment())
    reader = InputReader(options, inpainter, decode_photo, list_masks, lambda *_: [ASTRONAUT], lambda _: "")
    job = Item(tmp_path / "one.png", Path("one.png"), tmp_path / "out" / "one.png")
    loaded = reader.read(job)

    to_square = SimilarityTransform.from_estimate(TEMPLATE * 256, ASTRONAUT).inverse
    y, x = np.mgrid[:512, :512]
    u, v = np.floor(to_square(np.stack([x.ravel(), y.ravel()], axis=1) + 0.5)).astype(int).T
    inside = (u >= 0) & (u < 256) & (v >= 0) & (v < 256)
    expected = np.zeros(512 * 512, np.bool_)
    expected[inside] = seen[v[inside], u[inside]] == index
    assert expected.any()
    assert (loaded.hole.ravel() == expected).mean() > 0.99
    assert loaded.result.hole_ratio == loaded.hole.mean()
    (face,) = loaded.faces
    assert ((face.mask[0] > 0.5) == (seen == index)).mean() > 0.95


@pytest.mark.parametrize("seed", range(20))
def test_a_region_that_fills_the_square_does_not_leave_it(seed):
    random = np.random.default_rng(seed)
    side = random.uniform(100, 500)
    square = square_of(placed(random.uniform(-40, 40), side, *random.uniform(399, 401, 2)), (800, 800), "x")
    hole = np.zeros((800, 800), np.bool_)
    add_region(hole, np.ones((256, 256), np.bool_), square)
    assert (owners([square], hole)[hole] == 0).all()
    assert hole.sum() == pytest.approx(side**2, rel=0.03)


@pytest.fixture
def inpaint(showface, narrow_bundle):
    """Return a function that completes a folder with ``--align`` and returns the outcome and the lines by input."""

    def run(folder, *options):
        places = ("inpaint", folder / "in", folder / "out", "--bundle", narrow_bundle, "--device", "cpu", "--align")
        result = showface(*places, *options)
        log = folder / "out" / "results.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return result, {line["input"]: line for line in lines}

    return run


@pytest.fixture
def astronaut(tmp_path):
    """Return a folder with the astronaut as she comes, twice side by side, and without a face at the hole."""
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    pixels = skimage.data.astronaut()
    twice = np.concatenate([pixels, pixels], axis=1)
    hole = np.zeros((512, 512), np.uint8)
    hole[95:125, 195:260] = 255
    away = np.zeros_like(hole)
    away[460:500, 20:60] = 255
    named = {"one": (pixels, hole), "two": (twice, np.concatenate([hole, hole], axis=1)), "away": (pixels, away)}
    for name, (image, mask) in named.items():
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    faces = {"one.png": [ASTRONAUT.tolist()], "away.png": [ASTRONAUT.tolist()]}
    faces["two.png"] = [ASTRONAUT.tolist(), np.add(ASTRONAUT, (512, 0)).tolist()]
    (tmp_path / "faces.json").write_text(json.dumps(faces))
    rows = ["name," + ",".join("xy"[k % 2] + str(k // 2) for k in range(10))]
    rows += [",".join([n, *map(str, np.ravel(f))]) for n, some in faces.items() for f in some]
    (tmp_path / "faces.csv").write_text("\n".join(rows))
    return tmp_path, named


def test_faces_are_completed_where_they_are(astronaut, inpaint):
    folder, named = astronaut
    options = ("--masks", folder / "masks", "--landmarks")
    result, lines = inpaint(folder, *options, folder / "faces.csv")
    assert result.returncode == 1, result.stderr
    assert "100.0% of the hole lies outside" in lines["away.png"]["error"]
    for name in ("one", "two"):
        image, mask = named[name]
        written = np.asarray(Image.open(folder / "out" / f"{name}.png"))
        np.testing.assert_array_equal(written[mask == 0], image[mask == 0])
        assert (written[mask > 0] != image[mask > 0]).mean() > 0.9
    one, two = (np.asarray(Image.open(folder / "out" / f"{name}.png")).astype(int) for name in ("one", "two"))
    assert np.abs(two[95:125, 195:260] - one[95:125, 195:260]).max() <= 2  # each face by itself
    assert np.abs(two[95:125, 707:772] - one[95:125, 195:260]).max() <= 2
    again, lines = inpaint(folder, *options, folder / "faces.json")  # that hold the same faces
    assert "0 done, 2 skipped, 1 failed" in again.stderr
    faces = json.loads((folder / "faces.json").read_text())
    faces["one.png"][0][0][0] += 3
    (folder / "faces.json").write_text(json.dumps(faces))
    _, lines = inpaint(folder, *options, folder / "faces.json")
    assert (lines["one.png"]["status"], lines["two.png"]["status"]) == ("done", "skipped")


def test_a_run_without_faces_or_detector_is_refused(astronaut, inpaint, monkeypatch):
    folder, _ = astronaut
    monkeypatch.delenv("SHOWFACE_YUNET", raising=False)
    result, _ = inpaint(folder, "--masks", folder / "masks")
    assert result.returncode == 2
    assert "SHOWFACE_YUNET" in result.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": [[[1, 2]]]}', '{"a": [[[1, 2], [1, 2], [1, 2], [1, null]]]}'])
def test_other_files_are_no_landmarks(tmp_path, text):
    (tmp_path / "faces.json").write_text(text)
    with pytest.raises(UsageError, match=r"faces\.json"):
        read_landmarks(tmp_path / "faces.json")
    (tmp_path / "faces.csv").write_text("a,1,2\nb,3,4\n")
    with pytest.raises(UsageError, match="row 1 has 3 columns"):
        read_landmarks(tmp_path / "faces.csv")


@pytest.mark.skipif(not YUNET.is_file(), reason="needs the YuNet model")
@pytest.mark.parametrize("scale", [1, 4])
def test_yunet_finds_the_astronaut(scale):
    pixels = cv2.resize(skimage.data.astronaut(), None, fx=scale, fy=scale)
    for variant in (pixels, pixels.astype(np.uint16) * 257):
        (found,) = yunet(YUNET)(variant)
        assert np.abs(found / scale - ASTRONAUT).max() < 8


@pytest.mark.skipif(not YUNET.is_file(), reason="needs the YuNet model")
def test_a_picture_without_a_face_fails_alone(astronaut, inpaint):
    folder, _ = astronaut
    Image.fromarray(picture((300, 300))).save(folder / "in" / "away.png")
    Image.fromarray(np.full((300, 300), 255, np.uint8)).save(folder / "masks" / "away.png")
    result, lines = inpaint(folder, "--masks", folder / "masks", "--face-detector", YUNET)
    assert result.returncode == 1
    assert "no face was found" in lines["away.png"]["error"]
    assert {lines[name]["status"] for name in ("one.png", "two.png")} == {"done"}


def test_names_of_landmarks_are_paths(tmp_path):
    """As a spreadsheet writes them, with a mark of the encoding, and as a shell does."""
    row = ",".join(map(str, range(10)))
    (tmp_path / "faces.csv").write_text(f"one.jpg,{row}\n./two.jpg,{row}\na//b.jpg,{row}\n", encoding="utf-8-sig")
    assert list(read_landmarks(tmp_path / "faces.csv")) == ["one.jpg", "two.jpg", "a/b.jpg"]
