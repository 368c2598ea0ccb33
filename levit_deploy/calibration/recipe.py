"""Recipes: how to quantize, as data. Names decode: what the body's layers are, and the extras.

w8a8-minmax      weights 8 bits per output channel, activations 8 bits per tensor, by min-max
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    name: str
    observer: str


DEFAULT = "w8a8-minmax"

RECIPES: dict[str, Recipe] = {r.name: r for r in (Recipe("w8a8-minmax", observer="min-max"),)}
