"""Commands that users are shown can be typed: in documents, in --help, in hints."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.cli import commands
from tests.cli.conftest import ROOT

DOCUMENTS = (ROOT / "README.md", *ROOT.glob("examples/*/README.md"), *ROOT.glob("docs/*.md"))
WITH_ARGUMENTS = r"levit-deploy (?:audit|bench|compile|export|package|quantize|tune|verify) .+"


def in_documents() -> Iterator[str]:
    for path in DOCUMENTS:
        joined = path.read_text().replace("\\\n", " ")
        yield from re.findall(rf"^{WITH_ARGUMENTS}", joined, re.MULTILINE)


def in_help() -> Iterator[str]:
    for command in commands.commands.values():
        yield from re.findall(rf"^ +({WITH_ARGUMENTS})", command.help or "", re.MULTILINE)


def in_hints() -> Iterator[str]:
    """Whole commands in quotes, with something in the place of what is filled in."""
    for path in (ROOT / "levit_deploy").rglob("*.py"):
        for text in re.findall(rf'hint=f?"({WITH_ARGUMENTS}?)"', path.read_text()):
            yield re.sub(r"\{[^}]*\}", "levit_128s", text)


@pytest.mark.parametrize("source", [in_documents, in_help, in_hints])
def test_commands_that_are_shown_can_be_typed(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report").mkdir()
    DEFAULT_RECIPE.save(Path("report") / "recipe.json")
    shown = list(source())
    assert len(shown) > 3
    for text in shown:
        _, name, *args = shlex.split(text, comments=True)
        commands.commands[name].make_context(name, args)  # raises what is wrong with them
