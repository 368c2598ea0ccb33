"""How commands print: columns for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click

from levit_deploy.records import printable, to_plain


def print_json(value: object) -> None:
    """One JSON document of records, dicts, lists, tuples, texts and numbers."""
    click.echo(json.dumps(to_plain(value), indent=2))


def print_text(text: str) -> None:
    """Lines of text, on stdout."""
    click.echo(printable_lines(text))


def printable_lines(text: str) -> str:
    """`printable`, but for line breaks: names in it may come from anywhere."""
    return "\n".join(map(printable, text.split("\n")))


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """`columns`, on stdout."""
    print_text(columns(rows))


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows of equally many cells as lines, each column as wide as its widest cell."""
    table = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return "\n".join(lines)


def bytes_text(count: int) -> str:
    """1234 -> `1.2 kB`; decimal units, as storage is sold."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB"
