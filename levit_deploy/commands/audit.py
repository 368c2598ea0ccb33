"""The command that says whether an artifact may be shipped: audit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levit_deploy.commands.arguments import (
    Named,
    artifact_argument,
    finite,
    on_option,
    skip_broken_option,
)
from levit_deploy.commands.audit_merge import merge_command
from levit_deploy.commands.audit_progress import ImageProgress
from levit_deploy.commands.audit_report import (
    GateChoice,
    check_writable,
    finish,
    report_options,
)
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.remembered import recall
from levit_deploy.commands.settings import load_for, reach, say_what_runs, show_settings
from levit_deploy.commands.weights import WeightsChoice, artifact_weights_options

if TYPE_CHECKING:
    from levit_deploy.audit.audit_artifact import Auditor
    from levit_deploy.audit.order import Order
    from levit_deploy.audit.settings import Settings, Shard
    from levit_deploy.audit.workers import Workers
    from levit_deploy.machines.machine import Machine
    from levit_deploy.runtime.artifact import Artifact


def _shard(text: str) -> object:
    from levit_deploy.audit.settings import Shard

    return Shard.parse(text)


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
@artifact_weights_options
@click.option(
    "--data",
    metavar="FOLDER|FILE.npz|demo",
    help="The images: one folder a class, or an array `labels`; without, only agreement is told. "
    "`demo` are the 500 test images in the package.  [default: what DIR was calibrated on]",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="At most so many, evenly spaced.  [default: all, or 64 under an emulator]",
)
@click.option(
    "--layer-images",
    type=click.IntRange(0),
    help="Look into an int8 artifact, at every quantized tensor, for so many of them; of fewer "
    "than 8 noise can look like a fault.  "
    "[default: 64, or 8 under an emulator]",
)
@skip_broken_option
@report_options
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
    callback=finite,
    help="Also find the fastest plan of float layers that drops by no more points of top-1.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="How many images are worked on at a time, of `--cluster local` how many processes do.  "
    "[default: one a CPU]",
)
@click.option(
    "--cluster",
    metavar="ADDRESS|local",
    help="Spread images and layers over the workers of this Dask scheduler, or over processes of "
    "their own.",
)
@on_option("Classify on this board; with several --on all work at it", multiple=True)
def audit_command(
    folder: Path,
    choice: WeightsChoice,
    data: str | None,
    images: int | None,
    layer_images: int | None,
    skip_broken: bool,
    limits: GateChoice,
    report: Path,
    force: bool,
    resume: bool,
    shard: Shard | None,
    sensitivity: bool,
    auto: float | None,
    jobs: int | None,
    cluster: str | None,
    boards: tuple[Machine, ...],
    as_json: bool,
) -> None:
    """Say whether the artifact in DIR may be shipped.

    The library itself, the reference, and for int8 its 8-bit model in ONNX Runtime classify the
    same images. The report says what differs, and whether that is more than chance: where all
    limits hold and so few images cannot tell, the verdict is "not enough images". Exits with 1 if
    it is "failed". DIR's manifest.json and verify.json get the verdict and the report's digest.

    A single logit is judged by its sign and its error; features by their cosine and by which of the
    images is the nearest neighbour of which.

    This executes the library in DIR, which can do all that you can do: know where it is from.

    `levit-deploy audit merge` makes one report of several shards.

    \b
    Examples:
      levit-deploy audit build/levit_128s-host-int8 --weights demo --data demo
      levit-deploy audit build/levit_256-rpi5-int8 --data imagenet/val --max-drop 1 -o report/
      levit-deploy audit build/levit_256-host-int8 --data imagenet/val --shard 2/8 -o shard-2
      levit-deploy audit build/levit_256-host-int8 --data imagenet/val --cluster tcp://boss:8786
      levit-deploy audit build/levit_256-rpi5-int8 --on ssh://pi@one.local --on ssh://pi@two.local
    """
    if resume and force:
        raise click.UsageError("--resume goes on, --force begins anew: use one of them")
    if cluster is not None and boards:
        raise click.UsageError("--cluster and --on both say what works: use one of them")
    sensitivity |= auto is not None
    if sensitivity and shard:
        raise click.UsageError("--sensitivity and --auto are of all images: leave out --shard")
    from levit_deploy.runtime.artifact import open_artifact

    with Phases() as phases, ExitStack() as stack:
        artifact = stack.enter_context(open_artifact(folder))
        check_writable(folder)
        choice, data = recall(phases, choice, artifact, data)
        say_what_runs(phases, artifact)
        for board in boards:
            reach(phases, board, artifact.manifest)
        checkpoint = load_for(phases, choice, artifact.manifest)
        phases.begin("prepare")
        from levit_deploy.audit import audit_artifact as audit
        from levit_deploy.audit.cluster import check_installed, cluster_workers
        from levit_deploy.audit.images import open_audit_images
        from levit_deploy.audit.settings import WHOLE
        from levit_deploy.audit.state import check_report

        if cluster is not None:
            check_installed()

        check_report(report, None, resume=resume, force=force)
        if sensitivity:
            audit.int8_table(artifact)  # what cannot be measured is told of before the long work
        images, layer_images = _how_many(artifact, images, layer_images, boards)
        opened = open_audit_images(data, checkpoint, skip_broken=skip_broken, maximum=images)
        for note in opened.notes:
            phases.note(note)
        look = audit.open_probe(artifact, checkpoint, boards) if layer_images else None
        probe = stack.enter_context(look) if look else None
        auditor = audit.Auditor(artifact, checkpoint, opened, probe, layer_images, boards)
        gate = limits.gate(auditor.settings)
        show_settings(phases, checkpoint, _settings(auditor.settings, report))
        jobs = jobs or max(len(os.sched_getaffinity(0)), len(boards))
        if cluster is None:
            workers = stack.enter_context(_own_threads(auditor, jobs))
        else:
            phases.begin("cluster")
            order = _order(auditor.settings, folder, choice, data, images, layer_images)
            workers = stack.enter_context(cluster_workers(cluster, order, jobs))
        phases.begin("audit")
        with ImageProgress(phases) as progress:
            auditor.run(
                report,
                workers,
                shard or WHOLE,
                resume=resume,
                force=force,
                on_images=progress,
            )
            if shard is not None:
                click.echo(f"{report}")
                return
            choices = audit.NO_CHOICES
            if sensitivity:
                phases.begin("layers")
                choices = audit.choose_layers(
                    auditor,
                    workers,
                    auto,
                    lambda done, total, layer: phases.detail(f"{done} of {total} layers: {layer}"),
                )
        phases.begin("report")
        result = audit.report_on([report], report, gate, artifact, choices)
        for line in result.audited.lost:
            phases.note(f"warning: {line}")
    from levit_deploy.runtime.signature import is_signed

    if is_signed(folder):
        click.echo(
            "warning: the manifest has the verdict now, and its signature does not fit any more: "
            f"levit-deploy sign {folder} --key KEY",
            err=True,
        )
    finish(result, report, as_json)


@contextmanager
def _own_threads(auditor: Auditor, jobs: int) -> Iterator[Workers]:
    from levit_deploy.audit.workers import Workers

    pool = ThreadPoolExecutor(jobs)
    with auditor:
        try:
            yield Workers(pool, auditor.chunk, auditor.nearness)
        finally:
            pool.shutdown(cancel_futures=True)


def _order(
    settings: Settings,
    folder: Path,
    choice: WeightsChoice,
    data: str,
    images: int | None,
    layer_images: int,
) -> Order:
    """The same audit in names that hold in any folder."""
    from levit_deploy.audit.order import Order
    from levit_deploy.calibration.image_set import DEMO
    from levit_deploy.models.lasting_names import is_url, lasting_name
    from levit_deploy.models.spec import FAMILY
    from levit_deploy.runtime.manifest import Manifest

    assert choice.weights is not None
    return Order(
        settings=settings,
        artifact=folder.absolute(),
        spec=FAMILY.get(Manifest.load(folder).model),
        weights=choice.weights if is_url(choice.weights) else lasting_name(choice.weights),
        sha256=choice.sha256,
        key=choice.key,
        offline=choice.offline,
        data=data if data == DEMO else os.path.abspath(data),
        images=images,
        layer_images=layer_images,
    )


def _how_many(
    artifact: Artifact, images: int | None, layer_images: int | None, boards: tuple[Machine, ...]
) -> tuple[int | None, int]:
    """(images, images to look inside for); fewer by default where an emulator runs them."""
    from levit_deploy.audit import audit_artifact as audit
    from levit_deploy.targets.emulator import run_prefix

    defaults: tuple[int | None, int] = None, audit.LAYER_IMAGES
    if not boards and run_prefix(artifact.manifest.device) != ():
        defaults = audit.EMULATED_IMAGES, audit.EMULATED_LAYER_IMAGES
    return images or defaults[0], defaults[1] if layer_images is None else layer_images


def _settings(settings: Settings, report: Path) -> dict[str, str]:
    emulated = ", under an emulator" if settings.emulated else ""
    labels = "labelled" if settings.labelled else "no labels"
    return {
        "artifact": f"{settings.name}, {settings.target}, {settings.precision}{emulated}",
        "images": f"{settings.images} of {settings.source}, {labels}",
        "output": str(report),
    }
