"""A board is tested with the commands that a user types."""

from tests.cli.conftest import cli, spawner  # noqa: F401
