"""Read a config dataclass from TOML or plain values, refusing unknown keys and wrong types."""

from __future__ import annotations

import tomllib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import read_text, shown

T = TypeVar("T")


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against the type ``hint`` of the field ``where`` and convert it."""
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {shown(value)}")
        return config_from_dict(typing.cast(Any, hint), value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise UsageError(f"{where}: {shown(value)} is none of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: expected a list, got {shown(value)}")
        element = typing.get_args(hint)[0]
        return tuple(_convert(element, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: expected a table, got {shown(value)}")
        return {k: _convert(typing.get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _convert(typing.get_args(hint)[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where}: expected {hint.__name__}, got {shown(value)}")
    return value


def config_from_dict(cls: type[T], data: dict[str, Any], where: str = "config") -> T:
    """Build the config dataclass ``cls`` from plain values.

    Raises:
        UsageError: a key is unknown or missing or a value has the wrong type; the message names it.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in fields(typing.cast(Any, cls))}
    unknown = sorted(set(data) - names)
    if unknown:
        raise UsageError(f"{where}: unknown key {shown(unknown[0])}; known: {', '.join(sorted(names))}")
    for f in fields(typing.cast(Any, cls)):
        if f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: missing key {f.name!r}")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()})


def config_from_toml(cls: type[T], path: Path) -> T:
    """Read the config dataclass ``cls`` from a TOML file; errors name the file and the key."""
    try:
        data = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # of a number of thousands of digits, too
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    return config_from_dict(cls, data, str(path))
