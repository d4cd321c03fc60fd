"""Complete a face on a Triton server that runs the repository of ``showface pack BUNDLE DIR --triton``.

    pip install 'showface[triton]'
    python examples/triton_client.py examples/faces/avatar-1.jpg examples/masks/avatar-1.png done.png

The server gets 256×256 tensors; cutting, resizing and composing are done here, by the functions of showface.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np

from showface.runtime.faces.masks import hole_from_mask
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.images.codec import encode_photo, read_photo, write_file
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT


def complete(client, module, model, image, mask):
    """Return ``completed_image`` [B, 3, H, W].

    Args:
        client: of the server.
        module: ``tritonclient.http`` or ``tritonclient.grpc``, whose client it is.
        model: name of the ensemble.
        image: [B, 3, H, W] float32 in [-1, 1].
        mask: [B, 1, H, W] float32, 1 = hole.
    """
    inputs = []
    for name, value in zip(CHAIN_INPUTS, (image, mask), strict=True):
        tensor = module.InferInput(name, list(value.shape), "FP32")
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    outputs = [module.InferRequestedOutput(CHAIN_OUTPUT)]
    return client.infer(model, inputs, outputs=outputs).as_numpy(CHAIN_OUTPUT)


def main():
    """Complete one file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("face", type=Path)
    parser.add_argument("mask", type=Path, help="white is the hole")
    parser.add_argument("output", type=Path)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http")
    parser.add_argument("--url", help="host:port; default: Triton's own on this machine")
    parser.add_argument("--model", default="showface")
    options = parser.parse_args()

    module = importlib.import_module(f"tritonclient.{options.protocol}")
    own = {"http": "localhost:8000", "grpc": "localhost:8001"}[options.protocol]
    client = module.InferenceServerClient(options.url or own)
    config = client.get_model_config(options.model, **({"as_json": True} if options.protocol == "grpc" else {}))
    config = config.get("config", config)
    size = int(config["input"][0]["dims"][-1])

    photo = read_photo(options.face)
    hole = hole_from_mask(read_photo(options.mask).pixels, photo.pixels.shape[:2], str(options.mask))
    image, mask = prepare(photo.pixels, hole, size, str(options.face))
    completed = complete(client, module, options.model, image[None], mask[None])[0]
    picture = composite(photo.pixels, hole, np.asarray(completed))
    write_file(options.output, encode_photo(picture, options.output.suffix, photo.lossy, photo.profile, photo.exif))


if __name__ == "__main__":
    main()
