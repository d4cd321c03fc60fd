"""Shared fixtures: a narrow model, its checkpoint and bundle, and folders of small faces."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from showface.export.bundle import export_bundle
from showface.runtime.faces.tensors import prepare
from showface.training.checkpoint import save_checkpoint
from showface.training.config import (
    CoarseConfig,
    LayoutConfig,
    MemoryConfig,
    NetworkConfig,
    ParserConfig,
    RefinerConfig,
)
from showface.training.networks.mdrnets import MDRNets

pytest_plugins = ["fixtures.occluder", "fixtures.training"]

SIZE = 256  # of the networks
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
NARROW = NetworkConfig(
    image_size=SIZE,
    coarse=CoarseConfig(widths=(8, 8, 8, 8), full_width=8, layout=LayoutConfig(widths=(8, 8, 8), full_width=8)),
    parser=ParserConfig(width=16),
    memory=MemoryConfig(channels=16, slots=8, encoder_width=8),
    refiner=RefinerConfig(width=8, spade_hidden=8, dilations=(2,)),
)
torch.set_num_threads(THREADS)


def synthetic_face(seed):
    """Return an ellipse with eyes and a mouth under seeded noise, (256, 256, 3) uint8."""
    random = np.random.default_rng(seed)
    canvas = np.full((SIZE, SIZE, 3), 90, np.uint8)
    cv2.ellipse(canvas, (128, 128), (80, 105), 0, 0, 360, (205, 165, 140), -1)
    for x in (98, 158):
        cv2.circle(canvas, (x, 110), 10, (50, 40, 40), -1)
    cv2.ellipse(canvas, (128, 180), (30, 10), 0, 0, 360, (170, 70, 80), -1)
    noise = random.integers(-12, 13, canvas.shape)
    return (canvas.astype(np.int64) + noise).clip(0, 255).astype(np.uint8)


def block_hole(seed, side=SIZE):
    """Return a hole (side, side) bool: one seeded block and a few single pixels."""
    random = np.random.default_rng(seed)
    hole = random.random((side, side)) < 0.001
    top, left = random.integers(side // 8, side // 2, 2)
    hole[top : top + side // 4, left : left + side // 3] = True
    return hole


def three_faces():
    """Return two crops of a photograph and a synthetic face, each (256, 256, 3) uint8."""
    photograph = skimage.data.astronaut()
    crops = photograph[0:256, 96:352], photograph[40:240, 130:330]
    return [*(cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for crop in crops), synthetic_face(0)]


def build_narrow(**changes):
    """Return a narrow model in evaluation mode whose refiner does something; ``changes`` go to the config."""
    torch.manual_seed(0)
    model = MDRNets(replace(NARROW, **changes))
    with torch.no_grad():
        model.refiner.to_rgb.weight.normal_(0.0, 0.05)
        model.refiner.to_rgb.bias.normal_(0.0, 0.05)
        model.coarse.layout.features.weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.fixture(scope="session")
def make_checkpoint():
    """Return a function that saves a narrow checkpoint of all stages; keywords change the network config."""

    def make(path, **changes):
        model = build_narrow(**changes)
        save_checkpoint(path, model, model.config, [name for name, _ in model.named_children()], {})
        return path

    return make


@pytest.fixture(scope="session")
def narrow_model():
    return build_narrow()


@pytest.fixture(scope="session")
def narrow_checkpoint(tmp_path_factory, make_checkpoint):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "narrow.safetensors")


@pytest.fixture(scope="session")
def chain_inputs():
    """Return ``image`` [3, 3, 256, 256] and ``mask`` [3, 1, 256, 256] of the three faces."""
    prepared = [prepare(face, block_hole(seed), SIZE, "face") for seed, face in enumerate(three_faces())]
    return np.stack([image for image, _ in prepared]), np.stack([mask for _, mask in prepared])


@pytest.fixture(scope="session")
def narrow_report(tmp_path_factory, narrow_checkpoint, chain_inputs):
    """Return the bundle's folder and the parity report of its export."""
    folder = tmp_path_factory.mktemp("bundle") / "narrow"
    return folder, export_bundle(narrow_checkpoint, folder, chain_inputs, THREADS)


@pytest.fixture(scope="session")
def narrow_bundle(narrow_report):
    return narrow_report[0]


@pytest.fixture(scope="session")
def faces():
    """Return the three faces with their holes, as the inpainter takes them."""
    return [(face, block_hole(seed)) for seed, face in enumerate(three_faces())]


@pytest.fixture
def face_folder(tmp_path, faces):
    """Return a folder of three faces (PNG and JPEG) and a folder of PNG masks of the same stems."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name, (face, hole) in zip(("a.png", "b.jpg", "c.png"), faces, strict=True):
        Image.fromarray(face).save(images / name)
        Image.fromarray(hole.astype(np.uint8) * 255).save(masks / f"{name[0]}.png")
    return images, masks
