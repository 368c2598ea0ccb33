"""docs/performance.md: every variant beside its peers, threads, sizes, ARM, and our notes.

    python -m benchmarks.performance [--rounds 60] [--output docs/performance.md]

Needs openvino beside the package's own dependencies, an idle machine and about fifteen minutes.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.instructions import count_instructions
from levit_deploy import __version__
from levit_deploy.models.demo import DEMO_MODEL
from levit_deploy.models.spec import FAMILY
from levit_deploy.profile import profile_kernels
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.verify.contenders import contenders_for
from levit_deploy.verify.kernel_profile import KernelTime
from levit_deploy.verify.latency import Contender, Latency, measure
from levit_deploy.verify.peer import Peer

PEERS = ("onnxruntime", "openvino")
PROFILED = (DEMO_MODEL, "levit_128", "levit_384")
NOTES = Path(__file__).with_name("performance_notes.md")
STARTS = 20
FIRST_RESULT = """
import sys, time
import numpy as np
from levit_deploy.runtime.loader import Library
from pathlib import Path
image = np.zeros((3, 224, 224), np.float32)
begin = time.perf_counter()
Library(Path(sys.argv[1])).run(image)
print(time.perf_counter() - begin)
"""


@click.command()
@click.option("--rounds", default=60, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="[default: stdout]")
def main(rounds: int, output: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
        text = "\n".join(_report(Path(name), rounds)) + "\n"
    if output:
        output.write_text(text)
    else:
        click.echo(text, nl=False)


def _report(work: Path, rounds: int) -> list[str]:
    host = get_target(HOST)
    lines = [
        "# Performance",
        "",
        "Made by `python -m benchmarks.performance`, which explains itself. Every figure is the",
        "minimum over interleaved rounds in which the contenders take turns (see",
        "`levit_deploy/verify/latency.py`); a ratio below 1 means that we are faster. 8 bits,",
        "streams, batches, cold starts, EfficientNets of equal accuracy: [peers.md](peers.md).",
        "",
        f"levit-deploy {__version__}, code for {host.base}, {host.description.split(': ')[-1]},",
        f"{platform.system()} {platform.release().split('-')[0]}.",
        "",
        "## fp32, one thread",
        "",
        "Peers run the same exported network. Ratios are of wall time, in brackets of CPU time.",
        "",
        "| model | ours | ONNX Runtime | OpenVINO | ours / ONNX Runtime | ours / the faster |",
        "|---|---|---|---|---|---|",
    ]
    artifacts = {}
    for model in FAMILY:
        click.echo(f"{model}: one thread", err=True)
        artifacts[model] = artifact = _compile(model, "host", work)
        latencies = _measure(artifact, 1, rounds, work / model)
        lines.append(f"| {model} | {_cells(latencies)} |")
    lines += _versions(latencies)

    demo = artifacts[DEMO_MODEL]
    click.echo(f"{DEMO_MODEL}: two threads", err=True)
    lines += _two_threads(demo, rounds, work)
    click.echo(f"{DEMO_MODEL}: sizes, start, compile time, ARM", err=True)
    lines += _sizes(demo, work)
    for model in PROFILED:
        lines += _profile(model, profile_kernels(artifacts[model], work))
    return [*lines, *NOTES.read_text().splitlines()]


def _compile(model: str, target: str, work: Path) -> Artifact:
    """By the command line, with random weights in a file."""
    import torch

    from levit_deploy.models.reference import Levit
    from levit_deploy.models.spec import get_spec

    weights = work / f"{model}.pth"
    if not weights.exists():
        torch.manual_seed(0)
        torch.save({"model": Levit(get_spec(model)).state_dict()}, weights)
    command = ("compile", "--target", target, model, "--weights", weights, "-o", work)
    subprocess.run(
        (sys.executable, "-m", "levit_deploy.cli", *command), check=True, capture_output=True
    )
    return Artifact.load(work / f"{model}-{target}-fp32")


def _measure(artifact: Artifact, threads: int, rounds: int, work: Path) -> list[Latency]:
    work.mkdir(exist_ok=True)
    contenders, missing = contenders_for(artifact, PEERS, threads, work)
    if missing:
        raise click.ClickException(f"pip install {' '.join(missing)}")
    return measure(contenders, rounds)


def _cells(latencies: Sequence[Latency]) -> str:
    ours, *peers = latencies
    times = (f"{latency.min_wall_us / 1e3:.2f} ms" for latency in latencies)
    return " | ".join((*times, _ratio(ours, peers[:1]), _ratio(ours, peers)))


def _ratio(ours: Latency, peers: Sequence[Latency]) -> str:
    wall = ours.min_wall_us / min(peer.min_wall_us for peer in peers)
    cpu = ours.min_cpu_us / min(peer.min_cpu_us for peer in peers)
    return f"{wall:.3f} ({cpu:.3f})"


def _versions(latencies: Sequence[Latency]) -> list[str]:
    peers = ", ".join(f"{latency.name} {latency.version}" for latency in latencies[1:])
    return ["", f"Peers: {peers}.", ""]


def _two_threads(artifact: Artifact, rounds: int, work: Path) -> list[str]:
    two = _measure(artifact, 2, rounds, work / "two")
    size = artifact.manifest.image_size
    library = artifact.shared_library
    ours = [
        Contender(f"{threads} threads", Peer.ARTIFACT, library, threads, size) for threads in (1, 2)
    ]
    one_thread, two_threads = measure(ours, rounds)
    fastest = min(peer.min_wall_us for peer in two[1:])
    return [
        f"## {artifact.manifest.model}, two threads",
        "",
        "| | ratio of wall time |",
        "|---|---|",
        f"| against our own one thread | {two_threads.min_wall_us / one_thread.min_wall_us:.3f} |",
        f"| against the fastest peer with two | {two[0].min_wall_us / fastest:.3f} |",
        "",
    ]


def _sizes(artifact: Artifact, work: Path) -> list[str]:
    library = artifact.shared_library
    begin = time.perf_counter()
    _compile(DEMO_MODEL, "x86-64-v3", work)
    compile_s = time.perf_counter() - begin
    command = (sys.executable, "-c", FIRST_RESULT, library)
    first_s = min(float(subprocess.check_output(command)) for _ in range(STARTS))
    arm = count_instructions(_compile(DEMO_MODEL, "arm64", work)) / 1e6
    manifest = artifact.manifest
    return [
        f"## {manifest.model}, sizes and times",
        "",
        "| | |",
        "|---|---|",
        f"| arena | {manifest.arena_bytes / 1e6:.2f} MB |",
        f"| code (.text) | {_text_bytes(library) / 1e6:.2f} MB |",
        f"| library | {library.stat().st_size / 1e6:.1f} MB |",
        f"| `levit-deploy compile` for x86-64-v3, verification included | {compile_s:.0f} s |",
        f"| first result, from dlopen to logits | {first_s * 1e3:.0f} ms |",
        f"| arm64, instructions of one inference (modelled, qemu) | {arm:.1f} million |",
        "",
    ]


def _text_bytes(library: Path) -> int:
    lines = subprocess.check_output(("size", "-A", library), text=True).splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(".text"))


def _profile(model: str, profile: Sequence[KernelTime]) -> list[str]:
    total_us = sum(kernel.min_us for kernel in profile)
    lines = [f"## Where the time of {model} goes", ""]
    lines += ["| kernels | share of the time | of the core's multiply-add peak |", "|---|---|---|"]
    for kind in dict.fromkeys(kernel.kind for kernel in profile):
        kernels = [kernel for kernel in profile if kernel.kind == kind]
        lines.append(f"| {kind} | {_shares(kernels, total_us)} |")
    return [*lines, f"| all | {_shares(profile, total_us)} |", ""]


def _shares(kernels: Sequence[KernelTime], total_us: float) -> str:
    time_us = sum(kernel.min_us for kernel in kernels)
    peak = sum(kernel.share_of_peak * kernel.min_us for kernel in kernels) / time_us
    return f"{time_us / total_us:.1%} | {peak:.0%}"


if __name__ == "__main__":
    main()
