"""``showface.runtime.Inpainter`` from Python: cheap to import, safe to share, and documented with what runs."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from showface.runtime import Inpainter
from showface.runtime.backends.chain import Chain

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 1)


def test_importing_the_package_loads_no_library():
    code = (
        "import sys, showface.runtime\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert showface.runtime.Inpainter.__name__ == 'Inpainter'\n"
        "assert not hasattr(showface.runtime, 'Outpainter')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize(("device", "faces_a_batch"), [("cpu", 1), ("cuda", 8)])
def test_the_batch_size_suits_the_device(device, faces_a_batch):
    chain = Chain([], "beside a CPU, on a GPU", device)
    assert Inpainter(chain, 256, "digest").default_batch_size == faces_a_batch


def test_threads_share_one_inpainter(inpainter, faces):
    work = [faces[k % 3] for k in range(12)]
    expected = [inpainter.complete(*face) for face in faces]
    with ThreadPoolExecutor(6) as pool:
        singles = pool.map(lambda face: inpainter.complete(*face), work)
        batches = [pool.submit(inpainter.complete_batch, work[k : k + 3]) for k in range(0, 12, 3)]
        results = [*singles, *(face for batch in batches for face in batch.result())]
    for k, completed in enumerate(results):
        np.testing.assert_array_equal(completed, expected[k % 3])


def test_an_empty_batch_is_empty(inpainter):
    assert inpainter.complete_batch([]) == []
