"""The command that makes one report of an audit's shards: audit merge."""

from __future__ import annotations

from pathlib import Path

import click

from levit_deploy.commands.audit_report import (
    GateChoice,
    check_writable,
    finish,
    report_options,
)
from levit_deploy.commands.progress import Phases


@click.command("merge")
@click.argument(
    "shards", metavar="SHARD...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--artifact",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The artifact that was audited; its manifest gets the verdict.",
)
@report_options
def merge_command(
    shards: tuple[Path, ...],
    folder: Path | None,
    limits: GateChoice,
    report: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Make one report of the folders that `audit --shard` wrote.

    It is the report, to the byte, that one run over all images gives. Exits with 1 if a limit is
    broken.

    \b
    Example:
      levit-deploy audit merge shard-1 shard-2 -o report/ --artifact build/levit_128s-host-int8
    """
    from levit_deploy.runtime.artifact import Artifact

    artifact = None if folder is None else Artifact.load(folder)
    if folder is not None:
        check_writable(folder)
    with Phases() as phases:
        phases.begin("merge")
        from levit_deploy.audit.audit_artifact import report_on
        from levit_deploy.audit.state import State, check_report

        check_report(report, None, resume=False, force=force)
        gate = limits.gate(State(shards[0]).settings())
        result = report_on(shards, report, gate, artifact)
    finish(result, report, as_json)
