"""Frozen dataclasses <-> JSON, strictly: what is read is what was written, or one DeployError.

A record is a frozen dataclass of int, float, bool, str, bytes (base64), StrEnum, records, tuples,
mappings by name, and any of them or None. A class says more about its JSON form by class variables:

    SCHEMA_VERSION: ClassVar[int]          written first; any other is refused
    DERIVED: ClassVar[tuple[str, ...]]     properties that are written for other readers; when read
                                           they must agree with the fields

A constructor that raises ValueError refuses the values, in its words.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular

MAX_BYTES = 1 << 25
MAX_DEPTH = 16
MAX_TEXT = 1 << 16  # characters of one string
MAX_INTEGER = 1 << 63

# A string that the user's files or command line chose: anything. Other strings are printable.
Text = Annotated[str, "text"]
# A float that may be infinite, which JSON has no number for: "inf", "-inf".
Extended = Annotated[float, "extended"]

_T = TypeVar("_T")
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_NUMBERS = re.compile(r"\[\n[-+.\deE,\s]*\]")  # no string holds a line break


def printable(text: str) -> str:
    """`text` without what could upset a terminal or a reader, such as control characters."""
    return "".join(
        c if c.isprintable() or c == _NO_BREAK_SPACE else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def to_json(record: object) -> str:
    """The text of a file; equal records give equal texts, a list of numbers takes one line."""
    text = json.dumps(to_plain(record), indent=1, allow_nan=False)
    return _NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n"


def to_plain(value: Any) -> Any:
    """A record, or what holds records, as dicts, lists, strings and numbers."""
    if is_dataclass(value):
        plain: dict[str, object] = {}
        if (version := getattr(value, "SCHEMA_VERSION", None)) is not None:
            plain["schema_version"] = version
        for name in getattr(value, "DERIVED", ()):
            plain[name] = to_plain(getattr(value, name))
        for field in fields(value):
            plain[field.name] = to_plain(getattr(value, field.name))
        return plain
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def load_record(kind: type[_T], path: Path, *, hint: str) -> _T:
    """The record of class `kind` in the file.

    Raises DeployError, which names the file and the field, with `hint`, as `read_json` does, or if
    the file is of another schema version, lacks a field, or has one too many or of another type.
    """
    return from_plain(kind, read_json(path, hint=hint), str(path), hint=hint)


def read_json(path: Path, *, hint: str) -> object:
    """What a JSON file of any origin says.

    Raises DeployError with `hint` if it cannot be read, is no regular file, too large, too deeply
    nested or no JSON.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DeployError(f"cannot read `{printable(str(path))}`: {reason}", hint=hint) from error
    return parse_json(content, str(path), hint=hint)


def parse_json(content: bytes, source: str, *, hint: str) -> object:
    """`read_json` of a file's content; `source` is what errors call it."""
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        text = content.decode()
        if _depth(text) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except ValueError as error:
        reason = printable(f"`{source}` is not JSON: {error}")
        raise DeployError(reason, hint=hint) from error
    return value


def from_plain(kind: type[_T], value: object, source: str, *, hint: str, at: str = "") -> _T:
    """The record that JSON's `value` is, at the place `at` of `source`. Raises as `load_record`."""
    try:
        record: _T = _read(kind, value, at)
    except _MisfitError as error:
        raise DeployError(printable(f"`{source}`: {error}"), hint=hint) from error
    return record


class _MisfitError(Exception):
    """Says which field is not as it must be, in words that fit behind `FILE: `."""


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(text):
        first = match[0][0]
        if first != '"':
            depth += 1 if first in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a field is there twice")
    return names


def _no_number(name: str) -> object:
    raise ValueError(f"`{name}` is not a number")


def _read(kind: Any, value: object, at: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (kind,) = set(arguments) - {types.NoneType}
        return _read(kind, value, at)
    if origin is tuple:
        return _read_tuple(arguments, _expected(list, "a list", value, at), at)
    if origin is Mapping:
        return {
            _read(arguments[0], name, f"{at}[...]"): _read(arguments[1], part, f"{at}[{name!r}]")
            for name, part in _expected(dict, "an object", value, at).items()
        }
    if kind is object:
        return value
    if is_dataclass(kind):
        return _read_record(kind, _expected(dict, "an object", value, at), at)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value in list(kind):
            return kind(str(value))
        raise _misfit(at, value, f"one of {', '.join(kind)}")
    what, fits = _PLAIN[kind]
    try:
        read = fits(value)
    except (ValueError, OverflowError):
        read = None
    if read is None:
        raise _misfit(at, value, what)
    return read


def _read_tuple(kinds: tuple[Any, ...], values: list[object], at: str) -> tuple[Any, ...]:
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(values)
    elif len(kinds) != len(values):
        raise _misfit(at, values, f"{len(kinds)} values")
    pairs = enumerate(zip(kinds, values, strict=True))
    return tuple(_read(kind, value, f"{at}[{index}]") for index, (kind, value) in pairs)


def _read_record(kind: Any, values: Mapping[str, object], at: str) -> Any:
    version = getattr(kind, "SCHEMA_VERSION", None)
    if version is not None and _plain_integer(values.get("schema_version")) != version:
        found = printable(str(values.get("schema_version")))[:40]
        where = f"`{at}` has " if at else ""
        raise _MisfitError(f"{where}schema version `{found}`, expected `{version}`")
    derived, within = getattr(kind, "DERIVED", ()), f"{at}." if at else ""
    kinds = _kinds(kind)
    names = {*kinds, *derived, *(() if version is None else ("schema_version",))}
    for name in sorted(names - set(values)):
        raise _MisfitError(f"missing field `{within}{name}`")
    for name in sorted(set(values) - names):
        raise _MisfitError(f"unknown field `{within}{printable(name)[:40]}`")
    parts = {name: _read(part, values[name], within + name) for name, part in kinds.items()}
    try:
        record = kind(**parts)
    except ValueError as error:
        raise _MisfitError(f"`{at}`: {error}" if at else str(error)) from error
    for name in derived:
        if (right := to_plain(getattr(record, name))) != values[name]:
            raise _misfit(within + name, values[name], f"`{right}`, as the rest says")
    return record


@functools.cache
def _kinds(kind: Any) -> dict[str, Any]:
    """The type of each field."""
    kinds = get_type_hints(kind, include_extras=True)
    return {field.name: kinds[field.name] for field in fields(kind)}


def _expected(kind: type[_T], what: str, value: object, at: str) -> _T:
    if not isinstance(value, kind):
        raise _misfit(at, value, what)
    return value


def _misfit(at: str, value: object, what: str) -> _MisfitError:
    shown = printable(json.dumps(value)[:40])
    return _MisfitError(f"`{at}` is `{shown}`, not {what}" if at else f"not {what}")


def _plain_integer(value: object) -> int | None:
    fits = type(value) is int and abs(value) < MAX_INTEGER
    return value if fits else None  # type: ignore[return-value]


def _plain_float(value: object) -> float | None:
    fits = type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return float(value) if fits else None  # type: ignore[arg-type]


def _plain_text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else None


def _plain_printable(value: object) -> str | None:
    text = _plain_text(value)
    return text if text is not None and printable(text) == text else None


def _plain_bytes(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    content = base64.b64decode(value, validate=True)
    return content if base64.b64encode(content).decode() == value else None


# What a value of each type is called, and the value itself, or None if it is of another type.
_PLAIN: dict[Any, tuple[str, Callable[[object], object | None]]] = {
    bool: ("true or false", lambda value: value if isinstance(value, bool) else None),
    int: ("a whole number", _plain_integer),
    float: ("a finite number", _plain_float),
    bytes: ("bytes in base64", _plain_bytes),
    Extended: (
        "a number",
        lambda value: float(str(value)) if value in ("inf", "-inf") else _plain_float(value),
    ),
    Text: ("a short text", _plain_text),
    str: (
        "a short text of printable characters",
        _plain_printable,
    ),
}
