"""Outputs of a run in a folder, so that machines that never meet can be compared.

A folder holds ``outputs.json`` (what made them, and for each case the digest of its inputs and of its
file) and a compressed ``.npz`` a case. It is written under a temporary name and renamed when complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from showface.runtime.backends.chain import Tensors
from showface.runtime.bundle import check_inputs, check_new, tensor_fault
from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.files import atomic_folder
from showface.runtime.stages import CHAIN_INPUTS, LABELS, SEMANTIC_MARGIN, graphs_of
from showface.runtime.untrusted.read import MAX_FILE, parse_arrays, read_file, read_json, shown

from .cases import Case
from .sources import Identity, Kept

OUTPUTS_FILE = "outputs.json"
OUTPUTS_SCHEMA = 1
AGAIN = "save the outputs again"


@dataclass(frozen=True, slots=True)
class SavedCase:
    """One case in the folder."""

    name: str
    digest: str  # of its inputs
    file: str
    sha256: str  # of the file
    given: tuple[str, ...]  # names of the tensors that were given, not computed


@dataclass(slots=True)
class OutputsWriter:
    """Writes the cases of a run one by one; see :func:`save_outputs`."""

    folder: Path
    identity: Identity
    cases: list[SavedCase] = field(default_factory=list)

    def add(self, case: Case, tensors: Tensors) -> None:
        """Keep the tensors of one case."""
        stages = graphs_of(self.identity.variant, self.identity.precision)
        wanted = {*CHAIN_INPUTS, SEMANTIC_MARGIN, *(name for stage in stages for name in stage.outputs)}
        buffer = io.BytesIO()
        kept: dict[str, Any] = {name: value for name, value in tensors.items() if name in wanted}
        np.savez_compressed(buffer, **kept)
        data, file = buffer.getvalue(), f"{len(self.cases):05d}.npz"
        self._write(file, data)
        digest = hashlib.sha256(data).hexdigest()
        self.cases.append(SavedCase(case.name, case.digest, file, digest, tuple(sorted(case.given))))

    def finish(self) -> None:
        """Write the list of the cases."""
        cases = [asdict(case) for case in self.cases]
        document = {"schema_version": OUTPUTS_SCHEMA, "source": asdict(self.identity), "cases": cases}
        self._write(OUTPUTS_FILE, (json.dumps(document, indent=1) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        with system_errors(ShowfaceError, self.folder / name, "cannot be written"):
            (self.folder / name).write_bytes(data)


@contextmanager
def save_outputs(folder: Path, identity: Identity) -> Iterator[OutputsWriter]:
    """Give what writes outputs; the folder appears when the block ends without an error.

    Raises:
        UsageError: the folder exists, or cannot be made.
    """
    check_new(folder)
    with system_errors(UsageError, folder, "cannot be written"), atomic_folder(folder) as temporary:
        writer = OutputsWriter(temporary, identity)
        yield writer
        writer.finish()


@dataclass(frozen=True, slots=True)
class SavedSource(Kept):
    """The outputs of an earlier run; each file is checked when it is read."""

    folder: Path
    entries: Mapping[str, SavedCase]

    def cases(self) -> Iterator[Case]:
        """Yield the inputs that the outputs belong to."""
        for entry in self.entries.values():
            tensors = self._read(entry)
            case = Case(
                entry.name,
                {name: tensors[name] for name in CHAIN_INPUTS},
                {name: tensors[name] for name in entry.given},
            )
            if case.digest != entry.digest:
                raise UsageError(f"{self.folder / entry.file}: its inputs are not those of {entry.name}; {AGAIN}")
            yield case

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """Return what was saved for ``case``.

        Raises:
            UsageError: nothing was saved for it, or for other inputs, or the file is broken, or other labels
                are given, which only a chain that runs can honour.
        """
        entry = self.entries.get(case.name)
        if entry is None:
            raise UsageError(f"{self.folder}: holds no outputs for {case.name}; {AGAIN}")
        if entry.digest != case.digest:
            raise UsageError(f"{self.folder}: its outputs for {case.name} belong to other inputs; {AGAIN}")
        if given:
            raise UsageError(f"{self.folder}: saved outputs cannot run again with other {', '.join(given)}")
        return self._read(entry)

    def _read(self, entry: SavedCase) -> dict[str, Any]:
        path = self.folder / entry.file
        data = read_file(path, MAX_FILE, UsageError, f"cannot be read; {AGAIN}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise UsageError(f"{path}: its hash differs from {OUTPUTS_FILE}; copy the folder again")
        try:
            tensors = parse_arrays(data, lambda headers: tensor_fault(headers, {"H": self.identity.image_size}))
        except ValueError as error:
            raise UsageError(f"{path}: holds no arrays: {error}; {AGAIN}") from error
        stages = graphs_of(self.identity.variant, self.identity.precision)
        outputs = (name for stage in stages for name in stage.outputs)
        missing = [name for name in (*CHAIN_INPUTS, *outputs) if name not in tensors]
        if missing:
            raise UsageError(f"{path}: lacks {', '.join(missing)}; {AGAIN}")
        try:
            check_inputs(tensors)
        except ValueError as error:
            raise UsageError(f"{path}: no outputs of a face: {error}; {AGAIN}") from error
        return tensors


def open_outputs(folder: Path) -> SavedSource:
    """Open the outputs of an earlier run.

    Raises:
        UsageError: the folder holds none, or its list is broken, or of a newer version.
    """
    path = folder / OUTPUTS_FILE
    data = read_json(path, "a list of saved outputs", AGAIN)
    try:
        version = data["schema_version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"'schema_version' is {shown(version)}")
        if version > OUTPUTS_SCHEMA:
            raise UsageError(f"{path}: schema {shown(version)} is newer than {OUTPUTS_SCHEMA}; pip install -U showface")
        identity = _identity(data["source"])
        entries = [_entry(case) for case in data["cases"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a list of saved outputs: {error}; {AGAIN}") from error
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries) or not entries:
        raise UsageError(f"{path}: holds no cases, or one twice; {AGAIN}")
    return SavedSource(identity, folder, by_name)


def _identity(data: Mapping[str, Any]) -> Identity:
    """Return what made the outputs; raises ValueError, KeyError, TypeError or AttributeError where it is malformed."""
    identity = Identity(**{known.name: data[known.name] for known in fields(Identity)})
    texts = (identity.description, identity.variant, identity.weights, *identity.precision.values())
    if not all(isinstance(text, str) for text in (*texts, *identity.environment.values())):
        raise ValueError("a text of its source is none")
    if type(identity.image_size) is not int:
        raise ValueError(f"'image_size' is {shown(identity.image_size)}")
    if set(identity.precision) != {stage.name for stage in graphs_of(identity.variant, identity.precision)}:
        raise ValueError("variant and stages do not fit")
    return identity


def _entry(data: Mapping[str, Any]) -> SavedCase:
    """Return one case, in whose file name there is no folder; raises as :func:`_identity` does."""
    entry = SavedCase(**{**data, "given": tuple(data["given"])})
    texts = (entry.name, entry.digest, entry.file, entry.sha256)
    if not all(isinstance(text, str) for text in texts) or set(entry.given) - {LABELS}:
        raise ValueError(f"case {shown(entry.name)} is malformed")
    if entry.file != Path(entry.file).name or not entry.file.endswith(".npz"):
        raise ValueError(f"case {shown(entry.name)} is malformed")
    return entry
