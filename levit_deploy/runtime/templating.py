"""The templates of this room -> text."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, settings: Mapping[str, object]) -> str:
    """The text of a file in TEMPLATES; raises jinja2.UndefinedError if a setting is missing."""
    return _environment().get_template(template).render(settings)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
