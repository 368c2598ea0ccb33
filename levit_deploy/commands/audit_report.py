"""What audit and audit merge share: the limits and where the report goes, and how both end."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levit_deploy.commands.arguments import Decorator, finite, json_option
from levit_deploy.commands.audit_summary import print_audit
from levit_deploy.commands.output import print_json
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.audit.gate import Gate
    from levit_deploy.audit.result import AuditResult
    from levit_deploy.audit.settings import Settings

_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--reference",
        type=click.Choice(["fp32", "qdq"]),
        default="fp32",
        show_default=True,
        help="Whom the artifact is held against: PyTorch, or ONNX Runtime on its 8-bit model.",
    ),
    click.option(
        "--max-drop",
        metavar="POINTS",
        type=float,
        callback=finite,
        help="Fail if top-1 drops by more percentage points.  [default: 0.5 with labels]",
    ),
    click.option(
        "--min-agreement",
        metavar="PERCENT",
        type=click.FloatRange(0, 100),
        callback=finite,
        help="Fail if fewer images have the same top-1, sign or nearest neighbour.  [default: 98 "
        "without labels, 90 for features]",
    ),
    click.option(
        "--min-cosine",
        metavar="COSINE",
        type=click.FloatRange(-1, 1),
        callback=finite,
        help="Fail if features have a lower one, mean over images.  [default: 0.99 for features]",
    ),
    click.option(
        "--max-error",
        metavar="PERCENT",
        type=click.FloatRange(0),
        callback=finite,
        help="Fail if a single logit is further off, root mean square, of its spread.  [default: "
        "10 for one logit]",
    ),
    click.option(
        "-o",
        "--output",
        "report",
        default="report",
        show_default=True,
        type=click.Path(path_type=Path),
        help="The folder that gets the report.",
    ),
    click.option("--force", is_flag=True, help="Replace the report of an earlier audit."),
    json_option,
)


@dataclass(frozen=True)
class GateChoice:
    """What the options say; None where they say nothing."""

    reference: str
    max_drop: float | None
    min_agreement: float | None
    min_cosine: float | None
    max_error: float | None

    def gate(self, settings: Settings) -> Gate:
        """What is asked for; raises DeployError if an audit with `settings` cannot tell it."""
        from levit_deploy.audit.gate import Bounds, Gate
        from levit_deploy.audit.result import RunnerName

        runner = {"fp32": RunnerName.REFERENCE, "qdq": RunnerName.QDQ}[self.reference]
        bounds = (self.max_drop, self.min_agreement, self.min_cosine, self.max_error)
        return Gate.of(settings, runner, Bounds(*bounds))


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that ends with a report; it gets the limits as `limits`."""

    @functools.wraps(command)
    def collected(**values: Any) -> Any:
        names = (field.name for field in fields(GateChoice))
        return command(limits=GateChoice(**{name: values.pop(name) for name in names}), **values)

    decorated: Callable[..., Any] = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def check_writable(folder: Path) -> None:
    """Told of before the long work: the artifact gets the verdict."""
    if not os.access(folder, os.W_OK):
        raise DeployError(
            f"`{folder}` is read-only, and its manifest is to get the verdict",
            hint=f"copy it, and audit the copy: cp -r {shlex.quote(str(folder))} .",
        )


def finish(result: AuditResult, report: Path, as_json: bool) -> None:
    """The result on stdout, each broken limit on stderr; exit with 1 if it is not to be shipped."""
    from levit_deploy.audit.wording import bound, found

    if as_json:
        print_json(result)
    else:
        print_audit(result)
        click.echo(f"\n{report}/audit.html")
    for limit in result.limits:
        if not limit.passed:
            values = f"{found(limit)}, the limit is {bound(limit)}"
            click.echo(f"{limit.option} is broken: {limit.what}: {values}", err=True)
    if not result:
        raise click.exceptions.Exit(1)
