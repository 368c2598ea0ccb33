"""Records in JSON: what is written is read, anything else is one error that says where."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levit_deploy.errors import DeployError
from levit_deploy.records import (
    MAX_BYTES,
    MAX_DEPTH,
    Extended,
    Text,
    from_plain,
    load_record,
    parse_json,
    printable,
    to_json,
    to_plain,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Drawing:
    SCHEMA_VERSION: ClassVar[int] = 3
    DERIVED: ClassVar[tuple[str, ...]] = ("empty",)

    first: str
    last: str | None
    colour: Colour
    points: tuple[Point, ...]
    corner: tuple[float, float, bool]
    sizes: Mapping[Colour, int]
    limit: Extended
    note: Text
    anything: object = "x"

    def __post_init__(self) -> None:
        if self.corner[0] < 0:
            raise ValueError("the corner is outside")

    @property
    def empty(self) -> bool:
        return not self.points


DRAWING = Drawing(
    first="Ada",
    last=None,
    colour=Colour.BLUE,
    points=(Point(1, 0.5), Point(-2, 1e30)),
    corner=(0.25, 3.0, True),
    sizes={Colour.RED: 7},
    limit=-float("inf"),
    note="a\x1b[31m\n\ud800",
)


def read(value: object) -> Drawing:
    content = json.dumps(value).encode()
    plain = parse_json(content, "drawing.json", hint="draw it again")
    return from_plain(Drawing, plain, "drawing.json", hint="draw it again")


def test_the_text_is_fixed() -> None:
    assert to_json(DRAWING) == (
        '{\n "schema_version": 3,\n "empty": false,\n "first": "Ada",\n "last": null,\n'
        ' "colour": "blue",\n "points": [\n  {\n   "x": 1,\n   "y": 0.5\n  },\n'
        '  {\n   "x": -2,\n   "y": 1e+30\n  }\n ],\n "corner": [\n  0.25,\n  3.0,\n  true\n ],\n'
        ' "sizes": {\n  "red": 7\n },\n "limit": "-inf",\n "note": "a\\u001b[31m\\n\\ud800",\n'
        ' "anything": "x"\n}\n'
    )


def test_a_list_of_numbers_takes_a_line_and_a_string_like_one_stays() -> None:
    @dataclass(frozen=True)
    class Lists:
        numbers: tuple[float, ...]
        text: str

    assert to_json(Lists((1.0, -2e-9), "[1,  2]")) == (
        '{\n "numbers": [ 1.0, -2e-09 ],\n "text": "[1,  2]"\n}\n'
    )


def test_round_trip() -> None:
    assert read(to_plain(DRAWING)) == DRAWING
    assert read(json.loads(to_json(DRAWING))) == DRAWING


finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63) + 1, 2**63 - 1)


@given(
    points=st.lists(st.builds(Point, integers, finite)).map(tuple),
    limit=st.floats(allow_nan=False),
    note=st.text(st.characters(codec=None)),
)
def test_any_values_come_back(points: tuple[Point, ...], limit: float, note: str) -> None:
    drawing = Drawing("", "", Colour.RED, points, (0.0, 0.0, False), {}, limit, note, anything=[1])
    assert read(json.loads(to_json(drawing))) == drawing


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema_version", 2, "schema version `2`, expected `3`"),
        ("schema_version", True, "schema version `True`"),
        ("empty", True, "`empty` is `true`, not `False`, as the rest says"),
        ("first", 1, "`first` is `1`, not a short text"),
        ("first", "\x1b[31m", "`first` is .* printable"),
        ("first", "\ud800", "`first` is .* printable"),
        ("first", "x" * 70_000, "`first` is `.{40}`, not a short text"),
        ("last", [], r"`last` is `\[\]`"),
        ("colour", "green", "`colour` is `.green.`, not one of red, blue"),
        ("colour", [], "not one of red, blue"),
        ("points", {}, "`points` is `{}`, not a list"),
        ("points", [{"x": 1, "y": 1}, {"x": True, "y": 1}], r"`points\[1\].x` is `true`, not a wh"),
        ("points", [{"x": 1.0, "y": 1}], r"`points\[0\].x`"),
        ("points", [{"x": 2**63, "y": 1}], r"`points\[0\].x`"),
        ("points", [{"x": 1, "y": 10**400}], r"`points\[0\].y` is .* not a finite number"),
        ("points", [{"x": 1, "y": "inf"}], r"`points\[0\].y`"),
        ("points", [{"x": 1}], r"missing field `points\[0\].y`"),
        ("points", [{"x": 1, "y": 1, "z\x1b": 1}], r"unknown field `points\[0\].z�`"),
        ("corner", [1, 2], r"`corner` is `\[1, 2\]`, not 3 values"),
        ("corner", [1, 2, 3], r"`corner\[2\]` is `3`, not true or false"),
        ("corner", [-1, 2, True], "the corner is outside"),
        ("sizes", {"red": None}, r"`sizes\['red'\]` is `null`"),
        ("sizes", {"green": 1}, "not one of red, blue"),
        ("limit", "nan", "`limit` is .* not a number"),
        ("note", None, "`note` is `null`"),
    ],
)
def test_the_field_is_named(place: str, value: object, message: str) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        read(to_plain(DRAWING) | {place: value})
    assert caught.value.hint == "draw it again"
    assert caught.value.message.startswith("`drawing.json`")
    assert printable(caught.value.message) == caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"x": NaN}', "`NaN` is not a number"),
        (b'{"x": Infinity}', "`Infinity` is not a number"),
        (b'{"x": 1, "x": 1}', "twice"),
        (b'{"x": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"[" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
        (b'{"a":' * 1_000_000, "nested"),
        (b'"\\"' + b"[" * 100, "is not JSON: Unterminated"),
        (b" " * (MAX_BYTES + 1), "bytes"),
    ],
)
def test_what_is_no_json_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        parse_json(content, "p.json", hint="h")
    assert caught.value.hint == "h"


def test_brackets_in_a_string_are_not_nesting() -> None:
    brackets = '\\"' + "[{" * 1000
    assert parse_json(json.dumps(brackets).encode(), "w", hint="h") == brackets


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "NUL", "loop"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "NUL":
        path = tmp_path / "x\0"
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(DeployError, match="cannot read") as caught:
        load_record(Point, path, hint="h")
    assert caught.value.hint == "h"


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DeployError, match="more than"):
        load_record(Point, path, hint="h")


def test_what_a_terminal_gets_is_printable() -> None:
    assert printable("a\x1b[31m\u202eb\udc80\n") == "a�[31m�b��"
    assert printable("98.6\u00a0% läuft") == "98.6\u00a0% läuft"
