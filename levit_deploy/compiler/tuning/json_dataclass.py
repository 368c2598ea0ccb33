"""Plain JSON values -> a frozen dataclass of ints, bools, enums and tuples of ints."""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import TypeVar, get_type_hints

_T = TypeVar("_T")


def from_json(kind: type[_T], values: object) -> _T:
    """Raises ValueError if `values` has other fields than `kind`, or values of other types."""
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is an object")
    types = get_type_hints(kind)
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if names != set(values):
        raise ValueError(f"{kind.__name__} has the fields {', '.join(sorted(names))}")
    return kind(**{name: _convert(types[name], values[name]) for name in names})


def _convert(kind: type, value: object) -> object:
    if kind in (int, bool) and type(value) is kind:
        return value
    if kind == tuple[int, ...] and isinstance(value, list):
        return tuple(_convert(int, item) for item in value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(str(value))
    raise ValueError(f"`{value}` is not {getattr(kind, '__name__', kind)}")
