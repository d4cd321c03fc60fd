"""The verbs, one a file: each parses, calls the library, and prints."""

from __future__ import annotations

import typer

from .ablate import ablate
from .benchmark import benchmark
from .build import build
from .calibrate import calibrate
from .diagnose import diagnose
from .evaluate import evaluate, evaluate_occluder
from .export import export
from .info import info
from .inpaint import inpaint
from .masks import masks
from .pack import pack
from .serve import serve
from .train import train
from .validate import validate

# In the order of ``showface --help``.
VERBS = (benchmark, calibrate, build, pack, export, info, inpaint, masks, serve, train, diagnose, ablate, validate)


def register(app: typer.Typer) -> None:
    """Give the app its verbs, once."""
    for verb in () if app.registered_commands else VERBS:
        app.command()(verb)
    measures = typer.Typer(invoke_without_command=True)
    measures.callback()(evaluate)
    measures.command("occluder")(evaluate_occluder)
    app.add_typer(measures, name="evaluate")
