"""``showface inpaint - -``: one face from standard input to standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from showface.runtime.batch.options import FORMAT_SUFFIXES
from showface.runtime.batch.start import Model
from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.masks import MaskSource
from showface.runtime.images.decoder_process import IsolatedDecoder
from showface.runtime.picture import format_of, load_picture
from showface.runtime.untrusted.read import MAX_FILE, read_file

from .printing import errors

PIPE = "-"


def is_pipe(source: Path, output: Path) -> bool:
    """Return whether both name the standard streams.

    Raises:
        UsageError: one does, the other does not.
    """
    named = (str(source) == PIPE, str(output) == PIPE)
    if any(named) and not all(named):
        raise UsageError("a pipe goes through: give - for both, as in: showface inpaint - - < in.png > out.png")
    return all(named)


def complete_pipe(origin: MaskSource, suffix: str | None, quality: int, model: Model) -> tuple[str, ...]:
    """Read a picture from standard input and write the finished one to standard output.

    A ``suffix`` of None keeps the format of the input.

    Returns:
        What makes a hole that the networks found worth a look; it is printed, too.

    Raises:
        UsageError: the mask is a folder, or the output is a terminal.
        InputError: the picture or the mask cannot be used.
    """
    if origin.path is not None and not origin.path.is_file():
        text = f"{origin.path}: a picture from a pipe has no name to find its mask by; give one mask file"
        raise UsageError(text, "masks")
    if sys.stdout.isatty():
        raise UsageError("the picture would be written to the terminal; add > out.png")
    data = sys.stdin.buffer.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise InputError(f"standard input: is larger than {MAX_FILE // 2**20} MiB")
    mask = None if origin.path is None else read_file(origin.path)
    inpainter = model.load(1)
    with IsolatedDecoder() as decoder:
        picture = load_picture(data, mask, origin, inpainter, decoder.decode)
    completed = inpainter.run(picture.image[None], picture.mask[None])[0] if picture.hole.any() else None
    form = next((name for name, end in FORMAT_SUFFIXES.items() if end == suffix), format_of(data))
    sys.stdout.buffer.write(picture.encode(completed, form, quality))
    sys.stdout.buffer.flush()
    for doubt in picture.doubts:
        errors.print(f"look at the picture: {doubt}")
    return picture.doubts
