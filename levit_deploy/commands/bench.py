"""The command that says how fast an artifact is, beside whom, and where its time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import artifact_argument, json_option, on_option
from levit_deploy.commands.bench_tables import print_board_bench, print_latencies, print_profile
from levit_deploy.commands.output import print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import reach, say_what_runs
from levit_deploy.records import to_plain

if TYPE_CHECKING:
    from levit_deploy.machines.machine import Machine
    from levit_deploy.runtime.artifact import Artifact
    from levit_deploy.verify.bench_program import BoardBench
    from levit_deploy.verify.kernel_profile import KernelTime
    from levit_deploy.verify.latency import Latency

PEERS = ("onnxruntime", "openvino", "torch")
_MOST_THREADS = 16


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Different numbers, with commas between them; None is no number."""
    texts = [] if value is None else value.split(",")
    if not all(text.strip().isdecimal() for text in texts):
        raise click.BadParameter(f"`{value}` is no list such as 1,2,4", ctx, param)
    return tuple(dict.fromkeys(int(text) for text in texts))


@click.command("bench")
@artifact_argument
@on_option("Time it on this board")
@click.option(
    "--against",
    help=f"Peers to time beside it, with commas: {', '.join(PEERS)}; `none` for none."
    "  [default: onnxruntime,openvino; with --on none]",
)
@click.option(
    "--peers",
    is_flag=True,
    help="As `--against onnxruntime`, which is what a board with Python may have.",
)
@click.option(
    "--threads",
    callback=_numbers,
    default="1",
    show_default=True,
    metavar="N[,N...]",
    help=f"1 to {_MOST_THREADS} threads; with --on several numbers, which take turns.",
)
@click.option(
    "--cores",
    callback=_numbers,
    metavar="N[,N...]",
    help="With --on: the cores to pin it to.  [default: as many as it takes, the fastest]",
)
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
    folder: Path,
    board: Machine | None,
    against: str | None,
    peers: bool,
    threads: tuple[int, ...],
    cores: tuple[int, ...],
    rounds: int,
    per_kernel: bool,
    as_json: bool,
) -> None:
    """Time the artifact in DIR, here or on a board.

    Peers run the same network in fp32, with random weights: latency does not depend on them.
    A ratio below 1 means that the artifact is faster.

    On a board a static C program does it, which needs nothing there: pinned to the fastest cores,
    with governor, clock and temperature before and after, and what the CPU counted.

    This executes the library in DIR, which can do all that you can do: know where it is from.

    \b
    Examples:
      levit-deploy bench build/levit_128s-host-fp32
      levit-deploy bench build/levit_128s-host-fp32 --against openvino --threads 2
      levit-deploy bench build/levit_128s-host-fp32 --against none --per-kernel
      levit-deploy bench build/levit_128s-rpi5-int8 --on ssh://pi@raspberrypi.local --threads 1,2,4
    """
    default = "onnxruntime" if peers else "none" if board else "onnxruntime,openvino"
    names = _peers(against or default)
    if not threads or not all(1 <= count <= _MOST_THREADS for count in threads):
        raise click.BadParameter(f"there may be 1 to {_MOST_THREADS}", param_hint="threads")
    if board is None and (len(threads) > 1 or cores):
        name = "cores" if cores else "threads"
        raise click.BadParameter("on this machine it is one number: see --on", param_hint=name)
    from levit_deploy.runtime.artifact import open_artifact

    found: Here | BoardBench
    with Phases() as phases, open_artifact(folder) as artifact:
        say_what_runs(phases, artifact)
        if board is None:
            found = _bench_here(phases, artifact, names, threads[0], rounds, per_kernel)
        else:
            reach(phases, board, artifact.manifest)
            from levit_deploy.verify.bench_program import bench_on
            from levit_deploy.verify.peer import Peer

            found = bench_on(
                board,
                artifact,
                threads=threads,
                rounds=rounds,
                cores=cores,
                peers=[Peer(name) for name in names],
                per_kernel=per_kernel,
                on_step=phases.begin,
            )
    if as_json:
        print_json({"schema_version": 1, "artifact": str(folder), **to_plain(found)})
        return
    if isinstance(found, Here):
        print_latencies(found.latencies, found.missing)
    else:
        print_board_bench(found)
    if found.kernels:
        click.echo()
        print_profile(found.kernels)


def _peers(against: str) -> list[str]:
    names = [] if against == "none" else [name.strip() for name in against.split(",")]
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(
                f"`{name}` is none of {', '.join(PEERS)}", param_hint="against"
            )
    return names


@dataclass(frozen=True)
class Here:
    """What was measured on this machine. `missing`: peers that are not installed."""

    threads: int
    latencies: Sequence[Latency]
    missing: Sequence[str]
    kernels: Sequence[KernelTime]


def _bench_here(
    phases: Phases,
    artifact: Artifact,
    peers: Sequence[str],
    threads: int,
    rounds: int,
    per_kernel: bool,
) -> Here:
    phases.begin("prepare")
    from levit_deploy.targets.host import read_cpu
    from levit_deploy.verify.contenders import contenders_for
    from levit_deploy.verify.images import Function
    from levit_deploy.verify.latency import measure
    from levit_deploy.verify.level import level_for
    from levit_deploy.verify.library_runner import LibraryRunner

    level = level_for(artifact.manifest, read_cpu())
    LibraryRunner(artifact, Function.RUN, level=level).check()
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as work:
        contenders, missing = contenders_for(artifact, peers, threads, Path(work))
        kernels: Sequence[KernelTime] = ()
        if per_kernel:
            phases.begin("profile")
            from levit_deploy.profile import profile_kernels

            kernels = profile_kernels(artifact, Path(work), phases.detail)
        phases.begin("bench")
        latencies = measure(
            contenders, rounds, lambda done: phases.detail(f"round {done} of {rounds}")
        )
    return Here(threads, latencies, missing, kernels)
