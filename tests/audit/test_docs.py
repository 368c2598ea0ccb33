"""docs/audit.md names every field of audit.json."""

import re
from pathlib import Path

from levit_deploy.records import to_plain
from tests.audit import sample

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"


def names(value):
    """Every key of a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from names(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from names(inner)


def test_every_field_is_documented():
    documented = set(re.findall(r"`(\w+)`", DOCS.read_text().partition("## audit.json")[2]))
    assert set(names(to_plain(sample.failed()))) <= documented
