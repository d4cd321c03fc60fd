"""The three layouts, their splits, what is held out, and every refusal, on small generated trees."""

import cv2
import numpy as np
import pytest

from showface.runtime.errors import UsageError
from showface.training.config import PhaseConfig, SourceConfig, TrainConfig, ValidationConfig
from showface.training.data.labels import read_labels
from showface.training.data.sources import face_probability, image_files, open_source, open_sources, read_face

SIZE = 8
GRAY = np.full((SIZE, SIZE, 3), 128, np.uint8)


def write(path, pixels=GRAY):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def names(files):
    return [path.name for path in files.images]


def celebahq(**changes):
    return SourceConfig("root", layout="celebahq", **changes)


def ffhq(**changes):
    return SourceConfig("ffhq", layout="ffhq", **changes)


@pytest.fixture
def folder(tmp_path):
    for stem in ("b", "a", "c"):
        write(tmp_path / f"images/{stem}.{'jpg' if stem == 'b' else 'png'}")
        write(tmp_path / f"labels/{stem}.png", np.full((SIZE, SIZE), 1, np.uint8))
    (tmp_path / "images/notes.txt").write_text("no image")
    (tmp_path / "images/._a.png").write_bytes(b"\0\5\x16\7")  # a Mac writes it beside a.png
    return tmp_path


@pytest.fixture
def celeb_tree(tmp_path):
    """Return a tree of five faces on both sides of the split, whose parts tell them apart."""
    for number in (2, 10, 1999, 27_999, 28_000):
        write(tmp_path / f"root/CelebA-HQ-img/{number}.jpg")
        anno = tmp_path / f"root/CelebAMask-HQ-mask-anno/{number // 2000}/{number:05d}"
        skin = np.zeros((SIZE, SIZE), np.uint8)
        skin[: 1 + number % 5] = 255
        write(anno.with_name(f"{anno.name}_skin.png"), skin)
    return tmp_path


@pytest.fixture
def ffhq_tree(tmp_path):
    """Return 2,003 empty files in folders of thousands: a listing opens none of them."""
    for number in range(2003):
        path = tmp_path / f"ffhq/{number // 1000 * 1000:05d}/{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "ffhq/LICENSE.txt").touch()
    return tmp_path


def test_folder_in_name_order(folder):
    files = open_source(SourceConfig("images"), folder)
    assert names(files) == ["a.png", "b.jpg", "c.png"]
    assert files.labels is None
    labelled = open_source(SourceConfig("images", labels="labels"), folder, with_labels=True)
    assert [label.path for label in labelled.labels] == [folder / f"labels/{stem}.png" for stem in "abc"]


def test_read_face_is_rgb_by_area(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8)
    write(tmp_path / "a.png", image[..., ::-1])
    blocks = image.reshape(SIZE, 2, SIZE, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(read_face(tmp_path / "a.png", SIZE), blocks, atol=0.5)


def test_celebahq_splits_by_the_number_in_the_name(celeb_tree):
    assert names(open_source(celebahq(split="train"), celeb_tree)) == ["2.jpg", "10.jpg", "1999.jpg", "27999.jpg"]
    assert names(open_source(celebahq(split="test"), celeb_tree)) == ["28000.jpg"]
    assert len(open_source(celebahq(), celeb_tree).images) == 5


def test_celebahq_labels_belong_to_their_faces(celeb_tree):
    files = open_source(celebahq(), celeb_tree, with_labels=True)
    for path, label in zip(files.images, files.labels, strict=True):
        assert read_labels(label, SIZE).sum() == SIZE * (1 + int(path.stem) % 5)


def test_ffhq_last_two_thousand_are_the_test_split(ffhq_tree):
    train, test = (open_source(ffhq(split=split), ffhq_tree) for split in ("train", "test"))
    assert names(train) == ["00000.png", "00001.png", "00002.png"]
    assert names(test) == [f"{number:05d}.png" for number in range(3, 2003)]
    assert len(open_source(ffhq(), ffhq_tree).images) == 2003


def test_ffhq_flat_and_by_number(tmp_path):
    for number in (9, 10, 100):
        write(tmp_path / f"ffhq/{number}.png")
    assert names(open_source(ffhq(), tmp_path)) == ["9.png", "10.png", "100.png"]
    for split in ("train", "test"):
        with pytest.raises(UsageError, match=r"3 files.*split = '"):
            open_source(ffhq(split=split), tmp_path)


def test_ffhq_of_two_thousand_files_has_no_split(ffhq_tree):
    for number in (2, 1, 0):
        (ffhq_tree / f"ffhq/00000/{number:05d}.png").unlink()
    with pytest.raises(UsageError, match="2000 files"):
        open_source(ffhq(split="test"), ffhq_tree)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SourceConfig("absent"), "absent: no such folder, or no images in it; .*'images'"),
        (SourceConfig("images", split="train"), "images.*split = 'train'"),
        (SourceConfig("absent", layout="celebahq"), "absent/CelebA-HQ-img.*'images'"),
        (SourceConfig("absent", layout="ffhq"), "absent.*'images'"),
        (celebahq(labels="labels"), "labels = 'labels'"),
        (ffhq(labels="labels"), "labels = 'labels'"),
    ],
)
def test_refused_sources(folder, source, message):
    with pytest.raises(UsageError, match=message):
        open_source(source, folder)


def test_empty_folder(tmp_path):
    (tmp_path / "root/CelebA-HQ-img").mkdir(parents=True)
    with pytest.raises(UsageError, match="CelebA-HQ-img: no such folder, or no images"):
        open_source(celebahq(), tmp_path)
    with pytest.raises(UsageError, match="or no images in it"):
        image_files(tmp_path)


@pytest.mark.parametrize("name", ["face.jpg", "-1.jpg", "1.5.jpg", "²3.jpg"])
def test_name_that_is_no_number(celeb_tree, name):
    write(celeb_tree / "root/CelebA-HQ-img" / name)
    with pytest.raises(UsageError, match=f"{name}.*'celebahq'"):
        open_source(celebahq(), celeb_tree)


def test_numbers_out_of_range_and_twice(celeb_tree, ffhq_tree):
    write(celeb_tree / "root/CelebA-HQ-img/00010.jpg")
    with pytest.raises(UsageError, match=r"same number as .*10\.jpg"):
        open_source(celebahq(), celeb_tree)
    (celeb_tree / "root/CelebA-HQ-img/00010.jpg").rename(celeb_tree / "root/CelebA-HQ-img/30000.jpg")
    with pytest.raises(UsageError, match=r"30000\.jpg.*0-29999"):
        open_source(celebahq(), celeb_tree)
    write(ffhq_tree / "ffhq/7.png")
    with pytest.raises(UsageError, match=r"00007\.png|/7\.png"):
        open_source(ffhq(), ffhq_tree)
    (ffhq_tree / "ffhq/7.png").unlink()
    write(ffhq_tree / "ffhq/thumbs/cover.png")
    with pytest.raises(UsageError, match=r"cover\.png.*'ffhq'"):
        open_source(ffhq(), ffhq_tree)


def test_split_without_images(tmp_path):
    write(tmp_path / "root/CelebA-HQ-img/5.jpg")
    with pytest.raises(UsageError, match="split = 'test'"):
        open_source(celebahq(split="test"), tmp_path)


def test_missing_labels(folder, celeb_tree, ffhq_tree):
    (folder / "labels/b.png").unlink()
    with pytest.raises(UsageError, match=r"labels/b\.png.*b\.jpg.*'labels'"):
        open_source(SourceConfig("images", labels="labels"), folder, with_labels=True)
    open_source(SourceConfig("images", labels="labels"), folder)
    with pytest.raises(UsageError, match=r"images.*'labels'"):
        open_source(SourceConfig("images"), folder, with_labels=True)
    write(celeb_tree / "root/CelebA-HQ-img/11.jpg")
    with pytest.raises(UsageError, match=r"0/00011_.*11\.jpg"):
        open_source(celebahq(), celeb_tree, with_labels=True)
    open_source(celebahq(), celeb_tree)
    with pytest.raises(UsageError, match="FFHQ has no labels"):
        open_source(ffhq(), ffhq_tree, with_labels=True)


def config(validation, counts, tmp_path):
    for name, count in counts.items():
        for i in range(count):
            write(tmp_path / f"{name}/{i:03d}.png")
    sources = {name: SourceConfig(name) for name in counts}
    return TrainConfig(sources, {"p": PhaseConfig(1)}, validation=validation)


def stems(found):
    return {name: [int(path.stem) for path in files.images] for name, files in found.items()}


def test_held_out_faces_are_every_kth_and_evenly_spread(tmp_path):
    run = config(ValidationConfig(4, faces=7), {"a": 40, "b": 9, "c": 8}, tmp_path)
    kept, held = (stems(open_sources(run, tmp_path, False, held_out)) for held_out in (False, True))
    assert kept == {name: [i for i in range(n) if i % 4] for name, n in (("a", 40), ("b", 9), ("c", 8))}
    assert held == {"a": [0, 12, 24], "b": [0, 4], "c": [0, 4]}
    run = config(ValidationConfig(4), {"a": 40, "b": 9, "c": 8}, tmp_path)
    held = stems(open_sources(run, tmp_path, False, True))
    assert held == {"a": list(range(0, 40, 4)), "b": [0, 4, 8], "c": [0, 4]}


def test_no_validation_keeps_all(tmp_path):
    run = config(None, {"a": 3}, tmp_path)
    assert stems(open_sources(run, tmp_path, False, False)) == {"a": [0, 1, 2]}
    with pytest.raises(UsageError, match=r"\[validation\]"):
        open_sources(run, tmp_path, False, True)


@pytest.mark.parametrize(
    ("validation", "counts", "message"),
    [
        (ValidationConfig(1), {"a": 3}, "holdout_every = 1"),
        (ValidationConfig(2, faces=0), {"a": 3}, "faces = 0"),
        (ValidationConfig(2), {"a": 3, "b": 1}, r"sources\.b: .*holdout_every = 2"),
        (None, {}, "sources"),
    ],
)
def test_refused_validation(tmp_path, validation, counts, message):
    with pytest.raises(UsageError, match=message):
        open_sources(config(validation, counts, tmp_path), tmp_path, False, False)


def test_errors_name_the_source(tmp_path):
    run = TrainConfig({"mine": SourceConfig("absent")}, {"p": PhaseConfig(1)})
    with pytest.raises(UsageError, match=r"sources\.mine: .*absent"):
        open_sources(run, tmp_path, False, False)


def test_shares_of_sources_and_faces():
    shares = face_probability({"a": (1.0, 8), "b": (3.0, 1)}, np.ones(9))
    np.testing.assert_allclose(shares, [0.25 / 8] * 8 + [0.75])
    shares = face_probability({"a": (2.0, 3), "b": (2.0, 2)}, np.asarray([1.0, 4.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(shares, [0.5 / 6, 2 / 6, 0.5 / 6, 0.25, 0.25])
    for weight in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match=r"sources\.b\.weight"):
            face_probability({"a": (1.0, 1), "b": (weight, 1)}, np.ones(2))
