"""Templates -> text."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, settings: Mapping[str, object], folder: Path = TEMPLATES) -> str:
    """The text of a file in `folder`; raises jinja2.UndefinedError if a setting is missing."""
    return _environment(folder).get_template(template).render(settings)


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
