"""A JSON file beside the weights, read field by field: as expected, absent, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeGuard

from levit_deploy.errors import DeployError
from levit_deploy.records import read_json

MOST_NAMES = 1 << 20
_DAMAGED = "download or save it again; it is not guessed what it should say"


@dataclass(frozen=True)
class Config:
    """An object of a file. `file`: what errors call it; `source`: what people call it.

    Every method gives None for a field that is absent or null, and raises DeployError for one that
    is not of its kind.
    """

    file: str
    source: str
    values: Mapping[str, object]

    @staticmethod
    def read(path: Path) -> Config | None:
        """The object in the file; None if there is no file. Raises DeployError if it is damaged."""
        if not path.exists():
            return None
        values = read_json(path, hint=_DAMAGED)
        if not isinstance(values, dict):
            raise _damaged(str(path), "holds no object")
        return Config(str(path), path.name, values)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if value is None or isinstance(value, str) else self._misfit(name, "a text")

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        return value if isinstance(value, bool) else self._misfit(name, "true or false")

    def whole(self, name: str) -> int | None:
        """A positive whole number."""
        value = self.values.get(name)
        if value is None or (type(value) is int and 0 < value < 1 << 31):
            return value
        return self._misfit(name, "a positive whole number")

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None or _is_number(value):
            return value
        return self._misfit(name, "a finite number")

    def numbers(self, name: str, *, above: float | None = None) -> tuple[float, ...] | None:
        """One number or a list of them, all more than `above`."""
        value = self.values.get(name)
        if value is None:
            return None
        least = -math.inf if above is None else above
        given = value if isinstance(value, list | tuple) else [value]
        numbers = tuple(float(each) for each in given if _is_number(each) and each > least)
        if not numbers or len(numbers) != len(given):
            self._misfit(name, "numbers" if above is None else f"numbers above {above:g}")
        return numbers

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """One whole number or a list of them, none negative."""
        numbers = self.numbers(name)
        if numbers is not None and not all(each >= 0 and each.is_integer() for each in numbers):
            return self._misfit(name, "whole numbers")
        return None if numbers is None else tuple(map(int, numbers))

    def rows(self, name: str) -> list[list[object]]:
        """A list of lists; empty if there is none."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
            return self._misfit(name, "a list of lists")
        return value

    def section(self, name: str) -> Config | None:
        """An object within."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            return self._misfit(name, "an object")
        return Config(self.file, self.source, value)

    def names(self, name: str) -> tuple[str, ...] | None:
        """A list of names, or an object of names by number; a number without one is its name."""
        value = self.values.get(name)
        if value is None or value == {}:
            return None
        if isinstance(value, Mapping):
            try:
                numbered = {int(key): each for key, each in value.items()}
                if not 0 <= min(numbered) <= max(numbered) < MOST_NAMES:
                    raise ValueError
            except ValueError:
                self._misfit(name, "names by number, from 0")
            value = [numbered.get(number, str(number)) for number in range(max(numbered) + 1)]
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            self._misfit(name, "names")
        return tuple(value)

    def require(self, *names: str) -> None:
        """Raise DeployError for the first field that is absent."""
        for name in names:
            if not self.has(name):
                raise _damaged(self.file, f"has no `{name}`")

    def contradiction(self, name: str, had: str) -> DeployError:
        """A field that is not what the weights beside it say."""
        return DeployError(
            f"`{name}` is `{_short(self.values.get(name))}` in `{self.file}`, but {had}",
            hint="the file belongs to other weights, or these are not whole: download both again",
        )

    def unsupported(self, name: str, why: str) -> DeployError:
        """A field that is sound, changes what the model computes, and cannot be followed."""
        return DeployError(
            f"`{name}` is `{_short(self.values.get(name))}` in `{self.file}`: {why}",
            hint="if it does not matter, remove it there; of preprocessing, state the whole: "
            "--preprocess, --mean, --std",
        )

    def _misfit(self, name: str, what: str) -> NoReturn:
        raise _damaged(
            self.file, f"has `{name}`: `{_short(self.values.get(name))}`, expected {what}"
        )


def _is_number(value: object) -> TypeGuard[int | float]:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an integer beyond any float
        return False


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."


def _damaged(file: str, how: str) -> DeployError:
    return DeployError(f"`{file}` {how}", hint=_DAMAGED)
