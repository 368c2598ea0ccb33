"""The command that says how fast an artifact is, beside whom, and where its time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import artifact_argument, json_option
from levit_deploy.commands.output import print_columns, print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import say_what_runs

if TYPE_CHECKING:
    from levit_deploy.verify.kernel_profile import KernelTime
    from levit_deploy.verify.latency import Latency

PEERS = ("onnxruntime", "openvino", "torch")


@click.command("bench")
@artifact_argument
@click.option(
    "--against",
    default="onnxruntime,openvino",
    show_default=True,
    help=f"Peers to time beside it, with commas: {', '.join(PEERS)}; `none` for none.",
)
@click.option("--threads", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    help="Interleaved rounds; each gives every contender a turn of about 50 ms.",
)
@click.option("--per-kernel", is_flag=True, help="Also time each kernel of the artifact.")
@json_option
def bench_command(
    folder: Path, against: str, threads: int, rounds: int, per_kernel: bool, as_json: bool
) -> None:
    """Time the artifact in DIR beside other runtimes.

    Peers run the same network in fp32, with random weights: latency does not depend on them.
    A ratio below 1 means that the artifact is faster.

    This executes the library in DIR, which can do all that you can do: know where it is from.

    \b
    Examples:
      levit-deploy bench build/levit_128s-host-fp32
      levit-deploy bench build/levit_128s-host-fp32 --against openvino --threads 2
      levit-deploy bench build/levit_128s-host-fp32 --against none --per-kernel
    """
    names = [] if against == "none" else [name.strip() for name in against.split(",")]
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(
                f"`{name}` is none of {', '.join(PEERS)}", param_hint="against"
            )
    from levit_deploy.runtime.artifact import open_artifact

    with (
        Phases() as phases,
        tempfile.TemporaryDirectory(prefix="levit-deploy-") as work,
        open_artifact(folder) as artifact,
    ):
        say_what_runs(phases, artifact)
        phases.begin("prepare")
        from levit_deploy.targets.host import read_cpu
        from levit_deploy.verify.contenders import contenders_for
        from levit_deploy.verify.images import Function
        from levit_deploy.verify.latency import measure
        from levit_deploy.verify.level import level_for
        from levit_deploy.verify.library_runner import LibraryRunner

        level = level_for(artifact.manifest, read_cpu())
        LibraryRunner(artifact, Function.RUN, level=level).check()
        contenders, missing = contenders_for(artifact, names, threads, Path(work))
        phases.begin("bench")
        latencies = measure(
            contenders, rounds, lambda done: phases.detail(f"round {done} of {rounds}")
        )
        profile: Sequence[KernelTime] = ()
        if per_kernel:
            phases.begin("profile")
            from levit_deploy.profile import profile_kernels

            profile = profile_kernels(artifact, Path(work), phases.detail)
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "artifact": str(folder),
                "threads": threads,
                "latencies": [asdict(latency) for latency in latencies],
                "missing": missing,
                "kernels": [asdict(kernel) for kernel in profile],
            }
        )
        return
    _print_latencies(latencies, missing)
    if profile:
        click.echo()
        _print_profile(profile)


def _print_latencies(latencies: Sequence[Latency], missing: Sequence[str]) -> None:
    ours = latencies[0]
    rows: list[tuple[str, ...]] = [
        ("", "VERSION", "MIN", "MEDIAN", "CPU MIN", "RATIO OF MIN", "RATIO OF CPU")
    ]
    for latency in latencies:
        ratios = ("", "")
        if latency is not ours:
            wall = ours.min_wall_us / latency.min_wall_us
            ratios = f"{wall:.3f}", f"{ours.min_cpu_us / latency.min_cpu_us:.3f}"
        times = (latency.min_wall_us, latency.median_wall_us, latency.min_cpu_us)
        columns = (f"{time / 1e3:.2f} ms" for time in times)
        rows.append((latency.name, latency.version, *columns, *ratios))
    rows += [(name, "not installed", "", "", "", "", "") for name in missing]
    print_columns(rows)


def _print_profile(profile: Sequence[KernelTime]) -> None:
    total = sum(kernel.min_us for kernel in profile)
    rows = [("KERNEL", "SHAPE", "TIME", "SHARE", "GFLOP/S", "OF PEAK")]
    for kernel in profile:
        rates = f"{kernel.gflops:.1f}", f"{kernel.share_of_peak:.0%}"
        share = f"{kernel.min_us / total:.1%}"
        rows.append((kernel.kind, kernel.shape, f"{kernel.min_us:.1f} us", share, *rates))
    print_columns(rows)
    flops = sum(kernel.gflops * kernel.min_us for kernel in profile) / total
    peak = sum(kernel.share_of_peak * kernel.min_us for kernel in profile) / total
    click.echo(
        f"all together {total:.0f} us, {flops:.1f} GFLOP/s, {peak:.0%} of the core's fp32 peak"
    )
