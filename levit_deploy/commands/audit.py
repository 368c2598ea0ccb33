"""The commands that say whether an artifact may be shipped: audit, and audit merge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levit_deploy.commands.arguments import (
    Decorator,
    Named,
    artifact_argument,
    json_option,
    offline_option,
    skip_broken_option,
    weights_option,
)
from levit_deploy.commands.audit_summary import print_audit
from levit_deploy.commands.output import print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import load_checkpoint, show_settings
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.verify.audit.gate import Gate
    from levit_deploy.verify.audit.result import AuditResult
    from levit_deploy.verify.audit.settings import Settings, Shard


def _shard(text: str) -> object:
    from levit_deploy.verify.audit.settings import Shard

    return Shard.parse(text)


_LIMITS: tuple[Decorator, ...] = (
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
        help="Fail if top-1 drops by more percentage points.  [default: 0.5 with labels]",
    ),
    click.option(
        "--min-agreement",
        metavar="PERCENT",
        type=click.FloatRange(0, 100),
        help="Fail if fewer images have the same top-1.  [default: 98 without labels]",
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


def _report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_LIMITS):
        command = option(command)
    return command


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
@_report_options
def merge_command(
    shards: tuple[Path, ...],
    folder: Path | None,
    reference: str,
    max_drop: float | None,
    min_agreement: float | None,
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
        _check_writable(folder)
    with Phases() as phases:
        phases.begin("merge")
        from levit_deploy.audit import report_on
        from levit_deploy.verify.audit.state import State, check_report

        check_report(report, None, resume=False, force=force)
        gate = _gate(State(shards[0]).settings(), reference, max_drop, min_agreement)
        result = report_on(shards, report, gate, artifact)
    _show(result, report, as_json)
    _leave(result)


class _AuditCommand(click.Command):
    """`audit DIR`; but `audit merge` is a command of its own."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] == [merge_command.name]:
            return merge_command.make_context(f"{info_name} merge", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command("audit", cls=_AuditCommand)
@artifact_argument
@weights_option
@offline_option
@click.option(
    "--data",
    required=True,
    metavar="FOLDER|FILE.npz|demo",
    help="The images: one folder a class, or an array `labels`; without, only agreement is told. "
    "`demo` are the 500 test images in the package.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="At most so many, evenly spaced.  [default: all, or 64 under an emulator]",
)
@click.option(
    "--layer-images",
    type=click.IntRange(0),
    help="Look into an int8 artifact, at every quantized tensor, for so many of them.  "
    "[default: 64, or 8 under an emulator]",
)
@skip_broken_option
@_report_options
@click.option("--resume", is_flag=True, help="Go on with an audit that was interrupted.")
@click.option(
    "--shard",
    metavar="I/N",
    type=Named("shard", _shard),
    help="Only the I-th of N parts; `levit-deploy audit merge` makes the report of all.",
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Measure what each layer of an int8 artifact would gain in float32.",
)
@click.option(
    "--auto",
    metavar="MAX_DROP",
    type=float,
    help="Also find the fastest plan of float layers that drops by no more points of top-1.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="How many images are worked on at a time.  [default: one a CPU]",
)
def audit_command(
    folder: Path,
    weights: str,
    offline: bool,
    data: str,
    images: int | None,
    layer_images: int | None,
    skip_broken: bool,
    reference: str,
    max_drop: float | None,
    min_agreement: float | None,
    report: Path,
    force: bool,
    resume: bool,
    shard: Shard | None,
    sensitivity: bool,
    auto: float | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Say whether the artifact in DIR may be shipped.

    The library itself, the reference, and for int8 its 8-bit model in ONNX Runtime classify the
    same images. The report says what differs, and whether that is more than chance. Exits with 1 if
    a limit is broken. DIR's manifest.json and verify.json get the verdict and the report's digest.

    `levit-deploy audit merge` makes one report of several shards.

    \b
    Examples:
      levit-deploy audit build/levit_128s-host-int8 --weights demo --data demo
      levit-deploy audit build/levit_256-rpi5-int8 --data imagenet/val --max-drop 1 -o report/
      levit-deploy audit build/levit_256-host-int8 --data imagenet/val --shard 2/8 -o shard-2
    """
    if resume and force:
        raise click.UsageError("--resume goes on, --force begins anew: use one of them")
    sensitivity |= auto is not None
    if sensitivity and shard:
        raise click.UsageError("--sensitivity and --auto are of all images: leave out --shard")
    from levit_deploy.models.spec import get_spec
    from levit_deploy.runtime.artifact import Artifact

    artifact = Artifact.load(folder)
    _check_writable(folder)
    with Phases() as phases, ExitStack() as stack:
        checkpoint = load_checkpoint(phases, get_spec(artifact.manifest.model), weights, offline)
        phases.begin("prepare")
        from levit_deploy import audit
        from levit_deploy.targets.host import read_cpu
        from levit_deploy.targets.table import get_target
        from levit_deploy.verify.audit.images import open_audit_images
        from levit_deploy.verify.audit.settings import WHOLE
        from levit_deploy.verify.audit.state import check_report

        check_report(report, None, resume=resume, force=force)
        if sensitivity:
            audit.int8_table(artifact)  # what cannot be measured is told of before the long work
        if not read_cpu().runs(get_target(artifact.manifest.base_target)):
            images = images or audit.EMULATED_IMAGES
            layer_images = audit.EMULATED_LAYER_IMAGES if layer_images is None else layer_images
        opened = open_audit_images(data, checkpoint, skip_broken=skip_broken, maximum=images)
        layer_images = audit.LAYER_IMAGES if layer_images is None else layer_images
        look = audit.open_probe(artifact, checkpoint) if layer_images else None
        probe = stack.enter_context(look) if look else None
        auditor = audit.Auditor(artifact, checkpoint, opened, probe, layer_images)
        gate = _gate(auditor.settings, reference, max_drop, min_agreement)
        show_settings(phases, checkpoint, _settings(auditor.settings, report))
        phases.begin("audit")
        with _Progress(phases) as progress:
            auditor.run(
                report,
                shard or WHOLE,
                resume=resume,
                force=force,
                jobs=jobs or len(os.sched_getaffinity(0)),
                on_images=progress,
            )
            if shard is not None:
                click.echo(f"{report}")
                return
            choices = audit.NO_CHOICES
            if sensitivity:
                phases.begin("layers")
                on_layer = _layer_progress(phases)
                choices = audit.choose_layers(artifact, checkpoint, opened, auto, on_layer)
        phases.begin("report")
        result = audit.report_on([report], report, gate, artifact, choices)
    _show(result, report, as_json)
    _leave(result)


def _layer_progress(phases: Phases) -> Callable[[int, int, str], None]:
    return lambda done, total, layer: phases.detail(f"{done} of {total} layers: {layer}")


def _gate(
    settings: Settings, reference: str, max_drop: float | None, min_agreement: float | None
) -> Gate:
    from levit_deploy.verify.audit.gate import Gate
    from levit_deploy.verify.audit.result import RunnerName

    runner = {"fp32": RunnerName.REFERENCE, "qdq": RunnerName.QDQ}[reference]
    return Gate.of(settings, runner, max_drop, min_agreement)


def _check_writable(folder: Path) -> None:
    """Told of before the long work: the artifact gets the verdict."""
    if not os.access(folder, os.W_OK):
        raise DeployError(
            f"`{folder}` is read-only, and its manifest is to get the verdict",
            hint=f"cp -r {folder} . && levit-deploy audit {folder.name}",
        )


def _settings(settings: Settings, report: Path) -> dict[str, str]:
    emulated = ", under an emulator" if settings.emulated else ""
    labels = "labelled" if settings.labelled else "no labels"
    return {
        "artifact": f"{settings.artifact}, {settings.target}, {settings.precision}{emulated}",
        "images": f"{settings.images} of {settings.source}, {labels}, {settings.preprocessing}",
        "output": str(report),
    }


_NOTE_S = 60  # a log, which shows nothing alive, gets a line this often


class _Progress:
    """How many images are done and how long the rest takes; after an interruption, how to go on."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._began: tuple[float, int] | None = None
        self._noted = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._noted = (now, done), now
        started, first = self._began
        text = f"{done} of {total} images"
        if done > first:
            left_s = (now - started) / (done - first) * (total - done)
            text += f", about {left_s:.0f} s left"
        self._phases.detail(text)
        if now - self._noted > _NOTE_S:
            self._noted = now
            self._phases.note(text)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and self._began is not None:
            self._phases.note("what is done is kept: the same command with --resume goes on")


def _show(result: AuditResult, report: Path, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        print_audit(result)
        click.echo(f"\n{report}/audit.html")
    for limit in result.limits:
        if not limit.passed:
            found = f"{limit.what}: {limit.value:.2f}, the limit is {limit.limit:g}"
            click.echo(f"{limit.option} is broken: {found}", err=True)


def _leave(result: AuditResult) -> None:
    """Exit with 1 unless the audit passed."""
    if not result:
        raise click.exceptions.Exit(1)
