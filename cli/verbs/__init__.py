"""The verbs, one a file, in three rooms: for faces, for a model, for a bundle; each parses, calls, and prints."""

from __future__ import annotations

import typer

from .bundle.benchmark import benchmark
from .bundle.build import build
from .bundle.calibrate import calibrate
from .bundle.export import export
from .bundle.info import info
from .bundle.pack import pack
from .bundle.validate import validate
from .faces.inpaint import inpaint
from .faces.masks import masks
from .faces.serve import serve
from .model.ablate import ablate
from .model.diagnose import diagnose
from .model.evaluate import evaluate, evaluate_occluder
from .model.train import train

# In the order of ``showface --help``.
VERBS = (benchmark, calibrate, build, pack, export, info, inpaint, masks, serve, train, diagnose, ablate, validate)


def register(app: typer.Typer, named: str | None = None) -> None:
    """Give the app its verbs, once.

    Args:
        app: the app.
        named: the one verb that the command line is for: typer takes as long to look through the options of all verbs
            as to import numpy. None, or a word that is none, gives it all.
    """
    there = {command.callback for command in app.registered_commands}
    wanted = [verb for verb in VERBS if verb.__name__ == named] or VERBS
    for verb in wanted:
        if verb not in there:
            app.command()(verb)
    app.registered_commands.sort(key=lambda command: [verb is command.callback for verb in VERBS].index(True))
    if len(wanted) == 1 or app.registered_groups:
        return
    measures = typer.Typer(invoke_without_command=True)
    measures.callback()(evaluate)
    measures.command("occluder")(evaluate_occluder)
    app.add_typer(measures, name="evaluate")
