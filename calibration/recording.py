"""Record what each stage really sees: every tensor of the float chain over real faces, in shards on disk."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from showface.evaluation.faces import Face, Pair, read_pair
from showface.runtime.backends.chain import Chain
from showface.runtime.backends.onnxruntime import open_chain
from showface.runtime.bundle import Bundle, tensor_fault
from showface.runtime.errors import InputError, UsageError, system_errors
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import write_file
from showface.runtime.stages import CATEGORIES, CHAIN_INPUTS, CHAIN_OUTPUT, LABELS
from showface.runtime.untrusted.read import MAX_TEXT, Headers, parse_arrays, parse_json, read_file

from .pace import pace
from .parallel import parallel

logger = logging.getLogger(__name__)

SHARD_FACES = 4
INDEX_FILE = "recording.json"
FACE_SHARE = 0.02  # of the pixels; with less skin the parser has seen no face


@dataclass(frozen=True, slots=True)
class Recorded:
    """One face with every tensor of the float chain, each with a batch of 1."""

    face: Face
    tensors: dict[str, NDArray[Any]]

    @property
    def shows_face(self) -> bool:
        """Whether the parser sees skin; true where the variant has no parser."""
        labels = self.tensors.get(LABELS)
        return labels is None or float((labels == CATEGORIES.index("skin")).mean()) >= FACE_SHARE


@dataclass(frozen=True, slots=True)
class Recording:
    """The shards of one set of faces in ``folder``."""

    folder: Path
    pairs: tuple[Pair, ...]

    def __iter__(self) -> Iterator[Recorded]:
        """Read face by face; one shard is in memory at a time."""
        for start in range(0, len(self.pairs), SHARD_FACES):
            path = _shard(self.folder, start)
            try:
                shard = parse_arrays(read_file(path, error=UsageError), _shard_fault)
            except ValueError as error:
                raise UsageError(f"{path}: not what was recorded: {error}; remove it") from error
            for k, pair in enumerate(self.pairs[start : start + SHARD_FACES]):
                tensors = {name: value[k : k + 1] for name, value in shard.items() if name not in ("rgb", "hole")}
                yield Recorded(Face(pair.image.name, pair.bucket, shard["rgb"][k], shard["hole"][k]), tensors)


def record(folder: Path, bundle: Bundle, pairs: Sequence[Pair], digest: str, threads: int) -> Recording:
    """Run the float chain over ``pairs``; shards in ``folder`` that an earlier, interrupted call wrote are kept.

    ``digest`` is that of the files of the pairs; the folder is made if it is missing. Shards are made side by side,
    each on one of ``threads``.

    Raises:
        UsageError: a file cannot be read, or every mask is empty.
    """
    key = {
        "bundle": bundle.digest,
        "data": digest,
        "faces": [f"{pair.bucket}/{pair.image.name}" for pair in pairs],
        "onnxruntime": onnxruntime.__version__,
    }
    with system_errors(UsageError, folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        _drop_stale(folder, key)
        write_file(folder / INDEX_FILE, json.dumps(key, indent=1).encode())
    starts = range(0, len(pairs), SHARD_FACES)
    missing = [start for start in starts if not _shard(folder, start).is_file()]
    if missing and len(missing) < len(starts):
        logger.info(f"{folder}: {len(starts) - len(missing)} of {len(starts)} shards were recorded before, going on")
    if missing:
        chain = open_chain(bundle, "cpu", 1)
        shards = [pairs[start : start + SHARD_FACES] for start in missing]
        recorded = parallel(lambda shard: _record_shard(chain, shard, bundle), shards, threads)
        for start, data in zip(missing, recorded, strict=True):
            pace().at(f"recording {folder.name} faces", start, len(pairs))
            with system_errors(UsageError, folder, "cannot be written"):
                write_file(_shard(folder, start), data)
    return Recording(folder, tuple(pairs))


def _drop_stale(folder: Path, key: dict[str, Any]) -> None:
    """Remove shards of other faces, another bundle or another version; without an index their origin is unknown."""
    try:
        known = parse_json(read_file(folder / INDEX_FILE, MAX_TEXT))
    except (InputError, ValueError):
        known = None
    shards = sorted(folder.glob("shard-*.npz"))
    if known == key or not shards:
        return
    changed = ", ".join(name for name in key if not isinstance(known, dict) or known.get(name) != key[name])
    logger.info(f"{folder}: what was recorded before differs ({changed}); recording anew")
    for path in shards:
        path.unlink()


def _record_shard(chain: Chain, pairs: Sequence[Pair], bundle: Bundle) -> bytes:
    faces = [read_pair(pair) for pair in pairs]
    rows = []
    for face in faces:  # one by one: the recorded values do not depend on the batch
        image, mask = prepare(face.rgb, face.hole, bundle.manifest.image_size, face.name)
        rows.append(chain.run({"image": image[None], "mask": mask[None]}))
    tensors = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    rgb, hole = np.stack([face.rgb for face in faces]), np.stack([face.hole for face in faces])
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, rgb=rgb, hole=hole, **tensors)
    return buffer.getvalue()


def _shard_fault(headers: Headers) -> str | None:
    missing = {"rgb", "hole", *CHAIN_INPUTS, CHAIN_OUTPUT} - set(headers)
    if missing:
        return f"it lacks {min(missing)}"
    tensors = {name: header for name, header in headers.items() if name not in ("rgb", "hole")}
    count, _, side, _ = (*headers[CHAIN_INPUTS[0]][1], 0, 0, 0, 0)[:4]
    pixels = {name: headers[name] for name in ("rgb", "hole")}
    if any(len(shape) < 3 or shape[0] != count for _, shape in pixels.values()):
        return f"its faces do not fit its tensors: {pixels}"
    return tensor_fault(tensors, {"H": side})


def _shard(folder: Path, start: int) -> Path:
    return folder / f"shard-{start // SHARD_FACES:04d}.npz"


def check_recording(recording: Recording) -> None:
    """Name the faces that would spoil the ranges.

    Raises:
        UsageError: no mask has a hole.
    """
    faceless, holes = [], 0
    for recorded in recording:
        holes += bool(recorded.face.hole.any())
        if not recorded.shows_face:
            faceless.append(recorded.face.name)
    if holes == 0:
        raise UsageError(f"{recording.pairs[0].mask.parent}: all masks are empty; white must be the hole")
    if holes < len(recording.pairs):
        logger.warning(f"{len(recording.pairs) - holes} of {len(recording.pairs)} masks are empty")
    if faceless:
        logger.warning(f"the parser sees no face in {', '.join(faceless)}; give aligned faces")
