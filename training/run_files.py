"""What a run leaves on disk: the state to resume from, and its checkpoints; each written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from showface.runtime.errors import ShowfaceError, UsageError
from showface.runtime.untrusted.read import file_digest, read_file

from .config import TrainConfig

STATE_FILE = "state.pt"
SEALED = b"showface"  # ends a state, after the digest of all before it
MAX_STATE = 2**35  # bytes
_SEAL = 32 + len(SEALED)  # bytes
_ZIP_END = b"PK\5\6"  # starts the last 22 bytes of what torch writes
# These decide what is written and how samples are fetched, not what is computed.
FREE_KEYS = ("checkpoint_every", "keep_every", "log_every", "grid_every", "feed")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file and move it to ``path``; a failure leaves ``path`` as it was.

    Raises:
        ShowfaceError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = f"; the file from before is whole: {path}" if path.is_file() else ""
        raise ShowfaceError(f"{path}: cannot be written: {str(error).partition(chr(10))[0]}{kept}") from error


def save_state(output: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write what :func:`load_state` reads."""

    def write(path: Path) -> None:
        torch.save({"config": asdict(config), **state}, path)
        digest = bytes.fromhex(file_digest(path, limit=MAX_STATE))
        with path.open("ab") as file:
            file.write(digest + SEALED)

    write_whole(output / STATE_FILE, write)


def _unsealed(data: bytes) -> memoryview:
    """Return what torch wrote of a state, which is whole; an older version did not seal it.

    Raises:
        ValueError: it is damaged.
    """
    view = memoryview(data)
    if data[-22:-18] == _ZIP_END and not data.endswith(SEALED):
        return view
    if not data.endswith(SEALED) or hashlib.sha256(view[:-_SEAL]).digest() != data[-_SEAL : -len(SEALED)]:
        raise ValueError("it is cut off or damaged; go on from a copy, or start anew")
    return view[:-_SEAL]


def check_origin(output: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Refuse to go on from ``state`` where a checkpoint that its run started from is another one by now.

    Args:
        output: folder of the run; the names are relative to it.
        state: what :func:`load_state` returned; one of an earlier version says nothing of its origin.
        digests: of the checkpoints as they are, by name.

    Raises:
        UsageError: names the checkpoint.
    """
    before = state.get("init", digests)
    changed = [name for name, digest in digests.items() if before.get(name) != digest]
    if changed:
        raise UsageError(
            f"{output / changed[0]}: has changed since the run in {output} started from it; "
            f"restore it, or remove {output} to train anew"
        )


def steps_done(output: Path, config: TrainConfig) -> int:
    """Return how many steps the run in ``output`` has taken; 0 where there is none.

    Raises:
        UsageError: as :func:`load_state`.
    """
    return int(load_state(output, config)["step"]) if (output / STATE_FILE).is_file() else 0


def load_state(output: Path, config: TrainConfig) -> dict[str, Any]:
    """Read the state of the run in ``output`` to the CPU.

    Raises:
        UsageError: there is none, it cannot be read, or it belongs to another config.
    """
    path = output / STATE_FILE
    if not path.is_file():
        raise UsageError(f"{path}: nothing to resume from; start anew", "resume")
    try:
        data = _unsealed(read_file(path, MAX_STATE, UsageError))
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        before = dict(state["config"])
    except UsageError:
        raise
    except Exception as error:  # torch raises what its unpickler raises
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path}: cannot be read as a training state: {why}") from error
    now = asdict(config)
    changed = [key for key in now if key not in FREE_KEYS and now[key] != before.get(key)]
    if changed:
        raise UsageError(
            f"{path}: the run was started with another {changed[0]!r} in its config; restore it, or start anew in "
            "another folder",
            "output",
        )
    return state
