"""What lies outside the hole is written bit by bit, whatever the lossless format, depth, layout and size."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from showface.runtime.batch.inputs import plan_items
from showface.runtime.batch.options import Options
from showface.runtime.batch.run import complete_folder
from showface.runtime.faces.masks import MaskSource
from showface.runtime.inpainter import Inpainter

SIDES = (100, 256, 300)  # below, at and above the networks' size
LAYOUTS = {"gray": (), "rgb": (3,), "rgba": (4,)}
FILES = [(suffix, layout, 8) for suffix in ("png", "tif") for layout in LAYOUTS]
FILES += [(suffix, layout, 16) for suffix in ("png", "tif") for layout in LAYOUTS]
FILES += [("bmp", "gray", 8), ("bmp", "rgb", 8), ("webp", "rgb", 8), ("webp", "rgba", 8)]


def noise(side, layout, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    shape = (side, side, *LAYOUTS[layout])
    return np.random.default_rng(side).integers(0, 2**bits, shape, dtype=dtype)


def some_hole(side):
    hole = np.random.default_rng(side + 1).random((side, side)) < 0.005
    hole[side // 4 : side // 2, side // 3 : side // 2] = True
    return hole


def write(path, pixels):
    """Write with OpenCV, which the code under test uses for 16 bits only; WebP with Pillow, to keep its colours."""
    if path.suffix != ".webp":
        order = {2: None, 3: (2, 1, 0), 4: (2, 1, 0, 3)}[2 if pixels.ndim == 2 else pixels.shape[2]]
        assert cv2.imwrite(str(path), pixels if order is None else np.ascontiguousarray(pixels[..., list(order)]))
    else:
        Image.fromarray(pixels).save(path, lossless=True, exact=True)


def read(path, bits):
    if bits == 8:
        return np.asarray(Image.open(path))
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 2)


def complete(inpainter, images, output, masks, batch=8):
    output.mkdir()
    jobs = plan_items(images, output, masks)
    options = Options(MaskSource("file", masks), batch_size=batch)
    results = list(complete_folder(jobs, inpainter, options, output / "results.jsonl"))
    assert [result.error for result in results] == [None] * len(jobs)
    return results


@pytest.mark.parametrize("side", SIDES)
def test_every_lossless_file_keeps_what_lies_outside_the_hole(inpainter, tmp_path, side):
    images, masks, output = tmp_path / "images", tmp_path / "mask.png", tmp_path / "out"
    images.mkdir()
    hole = some_hole(side)
    Image.fromarray(hole.astype(np.uint8) * 255).save(masks)
    sources = {f"{layout}{bits}.{suffix}": noise(side, layout, bits) for suffix, layout, bits in FILES}
    for name, pixels in sources.items():
        write(images / name, pixels)
        np.testing.assert_array_equal(read(images / name, pixels.itemsize * 8), pixels)
    assert len(complete(inpainter, images, output, masks)) == len(FILES)
    for name, pixels in sources.items():
        written = read(output / name, pixels.itemsize * 8)
        assert (written.dtype, written.shape) == (pixels.dtype, pixels.shape), name
        np.testing.assert_array_equal(written[~hole], pixels[~hole], err_msg=name)
        colors = slice(None) if pixels.ndim == 2 else slice(3)
        assert (written[hole][..., colors] != pixels[hole][..., colors]).mean() > 0.9, name
        if name.startswith("rgba"):
            np.testing.assert_array_equal(written[..., 3], pixels[..., 3], err_msg=name)


def test_the_written_files_keep_the_color_profile(inpainter, tmp_path):
    images, masks, output = tmp_path / "images", tmp_path / "mask.png", tmp_path / "out"
    images.mkdir()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in ("png", "jpg", "webp", "tif"):
        Image.fromarray(noise(64, "rgb", 8)).save(images / f"a.{suffix}", icc_profile=profile)
    Image.fromarray(some_hole(64)).save(masks)
    complete(inpainter, images, output, masks)
    for suffix in ("png", "jpg", "webp", "tif"):
        with Image.open(io.BytesIO((output / f"a.{suffix}").read_bytes())) as image:
            assert image.info.get("icc_profile") == profile, suffix
