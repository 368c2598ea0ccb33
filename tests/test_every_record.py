"""Every file of ours, damaged in every field: one error with a hint, or what the file says."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from levit_deploy.audit.mixed_precision import Nearness
from levit_deploy.audit.result import AuditResult
from levit_deploy.audit.settings import Settings
from levit_deploy.audit.state import Timing
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.tiles.table import TileTable, load_tiles
from levit_deploy.errors import DeployError
from levit_deploy.records import load_record, printable, to_json, to_plain
from levit_deploy.runtime.artifact import Taps
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.verify.report import Verification
from tests.compiler.tiles.test_table import ROWS


def example(kind: Any) -> Any:
    """A value of that type, with one of each thing that there may be many of."""
    if get_origin(kind) is Annotated:
        return example(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return example(next(part for part in get_args(kind) if part is not NoneType))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return tuple(map(example, parts[:1] if parts[-1] is Ellipsis else parts))
    if get_origin(kind) is Mapping:
        return {"a_name": example(get_args(kind)[1])}
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{name: example(hints[name]) for name in (f.name for f in fields(kind))})
    if issubclass(kind, StrEnum):
        return next(iter(kind))
    return {int: 3, float: 0.5, bool: True, str: "a_name", bytes: b"bytes"}[kind]


RECORDS: list[tuple[type, str, Callable[[Path], Any]]] = [
    (Manifest, "manifest.json", lambda path: Manifest.load(path.parent)),
    (Taps, "taps.json", lambda path: Taps.load(path.parent)),
    (Verification, "verify.json", lambda path: Verification.load(path.parent)),
    (CalibrationTable, "table.json", CalibrationTable.load),
    (Recipe, "recipe.json", Recipe.load),
    (Settings, "settings.json", Settings.load),
    (Nearness, "cached.json", lambda path: load_record(Nearness, path, hint="measure it")),
    (AuditResult, "audit.json", lambda path: load_record(AuditResult, path, hint="audit")),
    (Timing, "timing.json", lambda path: load_record(Timing, path, hint="audit")),
]

MISSING = object()
EXTRA = object()
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]
VALUES = (
    *(MISSING, EXTRA, None, True, 0, -1, 1.5, 10**400, 1e999, "", "red", "inf", [], {}, [{}], DEEP),
    *("\ud800", "a\0b", "a\x1b[31mb", "../../etc/passwd", "x" * 100_000),
)


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a JSON document."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else ()
    for key, part in enumerate(value) if isinstance(value, list) else inner:
        yield from places(part, (*place, key))


def damaged(text: str, place: tuple[str | int, ...], value: object) -> Any:
    """The document with another value at `place`."""
    document = parent = json.loads(text)
    for key in place[:-1]:
        parent = parent[key]
    if value is MISSING:
        del parent[place[-1]]
    elif value is EXTRA:
        if isinstance(parent, dict):
            parent[f"{place[-1]}_too"] = parent[place[-1]]
    else:
        parent[place[-1]] = value
    return document


def outcome(load: Callable[[Path], object], path: Path) -> object:
    """What is read, or the one error that there may be."""
    try:
        return load(path)
    except DeployError as error:
        return error


def check_damage(text: str, path: Path, load: Callable[[Path], object]) -> None:
    refused: set[tuple[str | int, ...]] = set()
    for place in (every := list(places(json.loads(text)))):
        for value in VALUES:
            document = damaged(text, place, value)
            path.write_text(json.dumps(document))
            found = outcome(load, path)
            if isinstance(found, DeployError):
                refused.add(place)
                assert found.hint, (place, value)
                assert printable(found.message) == found.message
                assert len(found.message) < 500
            else:
                assert to_plain(found) == document, (place, value)
    assert refused == set(every)


@pytest.mark.parametrize(("kind", "name", "load"), RECORDS)
def test_a_damaged_record(
    kind: type, name: str, load: Callable[[Path], Any], tmp_path: Path
) -> None:
    path, record = tmp_path / name, example(kind)
    path.write_text(to_json(record))
    assert load(path) == record
    check_damage(path.read_text(), path, load)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "[" * 10_000, "\x1b", "{}"])
@pytest.mark.parametrize(("kind", "name", "load"), RECORDS)
def test_another_file(
    kind: type, name: str, load: Callable[[Path], Any], content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DeployError) as caught:
        load(tmp_path / name)
    assert caught.value.hint


def test_damaged_tiles(tmp_path: Path) -> None:
    """A row of each family."""
    path = tmp_path / "tiles.json"
    TileTable(ROWS).save(path)

    def load(path: Path) -> dict[str, object]:
        load_tiles(path).save(path.with_name("saved.json"))
        saved = json.loads(path.with_name("saved.json").read_text())
        order = [row["spec"] for row in json.loads(path.read_text())["rows"]]
        return saved | {"rows": sorted(saved["rows"], key=lambda row: order.index(row["spec"]))}

    check_damage(path.read_text(), path, load)
