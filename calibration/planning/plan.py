"""The plan: which layer groups run in 8 bits, and why the others do not; a TOML file to edit and replay."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import read_text, shown

from ..ranges import settings_of
from ..settings import Calibrator, Target

HEADER = """\
# Which layers of each stage run in 8 bits ("int8") or stay in float; a text tells why.
# Edit it and replay it with: showface calibrate BUNDLE OUT --images DIR --masks DIR --plan FILE
"""
INT8 = "int8"
SETTINGS = "settings"  # the table beside those of the stages
SEPARATOR = "/"
Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is quantised.

    Attributes:
        target: who runs the graphs.
        method: how the ranges are found.
        stages: stage → layer group → ``int8``, or ``float: `` and the reason; the order is that of the graph.
        settings: stage → setting of the method, such as the percentile; of stages left out it is chosen anew.
            :func:`exception_key` of stage and layer group → its setting, where that is another.
    """

    target: Target
    method: Calibrator
    stages: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str] = field(default_factory=dict)

    def quantized(self, stage: str) -> list[str]:
        """Return the groups of ``stage`` in 8 bits."""
        return [group for group, precision in self.stages.get(stage, {}).items() if precision == INT8]

    def without(self, stage: str, reason: str, group: str | None = None) -> Plan:
        """Return the plan with one group, or all of a stage that were in 8 bits, left in float for ``reason``."""
        groups = dict(self.stages[stage])
        for name in [group] if group is not None else self.quantized(stage):
            groups[name] = f"float: {reason}"
        return replace(self, stages={**self.stages, stage: groups})

    def to_toml(self) -> str:
        """Return the text of the plan's file."""
        lines = [HEADER, f"target = {_text(self.target)}", f"method = {_text(self.method)}"]
        for stage, groups in {**({SETTINGS: self.settings} if self.settings else {}), **self.stages}.items():
            lines += ["", f"[{stage}]", *(f"{_text(group)} = {_text(value)}" for group, value in groups.items())]
        return "\n".join(lines) + "\n"


def exception_key(stage: str, group: str) -> str:
    """Return the key under which the settings hold that of a layer group which differs from its stage's."""
    return f"{stage}{SEPARATOR}{group}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a basic string of TOML escapes as JSON does


def read_plan(path: Path, groups_for: Callable[[Target], Mapping[str, Sequence[str]]]) -> Plan:
    """Read a plan.

    Args:
        path: TOML file.
        groups_for: gives the layer groups of each stage for a target; those that the file leaves out stay in float.

    Raises:
        UsageError: the file cannot be read, or names what there is not; the message says what there is.
    """
    text = read_text(path)
    try:
        data = tomllib.loads(text)
        target, method = _word(Target, "target", data), _word(Calibrator, "method", data)
    except KeyError as error:
        raise UsageError(f"{path}: the key {error} is missing") from error
    except (ValueError, RecursionError) as error:  # of TOML's syntax too
        raise UsageError(f"{path}: not a plan: {error}") from error
    known = groups_for(target)
    settings = data.pop(SETTINGS, {})
    places = {exception_key(stage, group) for stage, groups in known.items() for group in groups}
    if not isinstance(settings, dict) or not settings.keys() <= known.keys() | places:
        names = ", ".join(known)
        raise UsageError(
            f"{path}: [{SETTINGS}] gives a stage, or a layer group as 'stage/group', its setting of {method}; "
            f"this bundle has {names}"
        )
    options = settings_of(method)
    for stage, setting in settings.items():
        if (whole := stage.partition(SEPARATOR)[0]) not in settings:
            raise UsageError(f"{path}: [{SETTINGS}] has {stage!r}; give the setting of all of {whole!r} too")
        if setting not in options:
            raise UsageError(
                f"{path}: [{SETTINGS}] {stage} = {setting!r}: {method} has {', '.join(map(_text, options))}"
            )
    stages: dict[str, dict[str, str]] = {}
    for stage, groups in data.items():
        if stage not in known or not isinstance(groups, dict):
            raise UsageError(f"{path}: there is no stage {stage!r}; this bundle has {', '.join(known)}")
        for group, value in groups.items():
            if group not in known[stage]:
                raise UsageError(f"{path}: stage {stage} has no layers {group!r}; it has {', '.join(known[stage])}")
            if not isinstance(value, str) or (value != INT8 and value.split(":")[0] != "float"):
                raise UsageError(f"{path}: {stage} {group!r} is {value!r}; write 'int8' or 'float: reason'")
    for stage, layers in known.items():
        given = data.get(stage, {})
        stages[stage] = {name: given.get(name, "float: not named in the plan") for name in layers}
    return Plan(target, method, stages, settings)


def _word(kind: type[Word], key: str, data: dict[str, Any]) -> Word:
    value, known = data.pop(key), [str(word) for word in kind]
    if value not in known:
        raise ValueError(f"{key} is {shown(value)}; it must be one of {', '.join(known)}")
    return kind(value)
