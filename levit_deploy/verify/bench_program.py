"""How fast an artifact is on any machine: csrc/bench.c around its static library, run there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.machines.condition import held_back
from levit_deploy.machines.facts import Facts, read_facts
from levit_deploy.machines.machine import TIMEOUT_S, Machine, Workplace
from levit_deploy.machines.open import machine_for
from levit_deploy.records import from_plain, parse_json
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.driver import CSRC as LIBRARY_CSRC
from levit_deploy.runtime.instrument import write_program_header
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from levit_deploy.verify import latency_worker
from levit_deploy.verify.kernel_profile import (
    KernelTime,
    kernel_times,
    measure_peak_gflops,
    require_one_cpu,
)
from levit_deploy.verify.latency import Latency
from levit_deploy.verify.level import level_for
from levit_deploy.verify.link_around import CSRC, link_around
from levit_deploy.verify.peer import Peer
from levit_deploy.verify.process import level_variable

_ANY_CORE = "any"
_PROGRAM = "bench"
_PATIENCE_S = 5  # for a turn of one contender, on the slowest board with the largest variant
_PEERS_VARIABLES = {"ORT_DISABLE_TELEMETRY": "1"}  # ONNX Runtime would leave files in the home

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class BoardLatency(Latency):
    """`lowest_mhz`, `highest_mhz`: of the clock that was seen after each turn. Counts are of user
    code, for one image. None: the machine does not say."""

    threads: int
    lowest_mhz: int | None
    highest_mhz: int | None
    cycles: int | None
    instructions: int | None
    cache_misses: int | None


@dataclass(frozen=True)
class Condition:
    """Of one core, at one moment. None: the machine does not say."""

    governor: str | None
    mhz: int | None
    temperature_c: float | None

    @staticmethod
    def of(facts: Facts, core: int) -> Condition:
        kind = facts.kind_of(core)
        mhz = kind.mhz[kind.numbers.index(core)]
        return Condition(kind.governor, mhz, facts.temperature_c)


@dataclass(frozen=True)
class BoardBench:
    """What was measured on `machine`, and how it was doing.

    `cores`: n threads ran on the first n of them, whose kinds are `kinds`; empty: wherever its
    system liked, as under an emulator. `missing`: peers that its Python has not. `no_counters`: why
    nothing was counted. `before`, `after`: of the first core. `held_back`: why it did not run at
    its full clock.
    """

    machine: str
    system: str
    cpu: str
    emulated: bool
    cores: tuple[int, ...]
    kinds: tuple[str, ...]
    latencies: tuple[BoardLatency, ...]
    kernels: tuple[KernelTime, ...]
    missing: tuple[str, ...]
    no_counters: str | None
    before: Condition | None
    after: Condition | None
    held_back: str | None


@dataclass(frozen=True)
class _Printed:
    """What bench.c prints."""

    no_counters: str
    steps_ns: tuple[int, ...]
    latencies: tuple[BoardLatency, ...]


def bench_on(
    board: Machine | None,
    artifact: Artifact,
    *,
    threads: Sequence[int] = (1,),
    rounds: int,
    cores: Sequence[int] = (),
    peers: Sequence[Peer] = (),
    per_kernel: bool = False,
    on_step: OnStep = lambda step: None,
) -> BoardBench:
    """Time `artifact` with each number of `threads` in `rounds` interleaved rounds of 50 ms turns.

    `board`: None for this machine, or its emulator. `cores`: those to run on, by number; none: as
    many as it takes, the fastest first. `peers`: beside which other runtimes. Raises DeployError if
    the machine does not run the artifact, has not these cores, or if anything that is timed dies.
    """
    manifest = artifact.manifest
    if per_kernel:
        require_one_cpu(artifact)
    machine = board or machine_for(manifest.device)
    level = level_for(manifest, machine.cpu())
    target = manifest.on_device(level or manifest.base_target)
    machine = machine_for(target, board)
    before = read_facts(machine)
    pinned = () if machine.emulated else _choose_cores(machine, before, cores, max(threads))
    there = [peer for peer in peers if peer.value in (before.runtimes or ())]
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name, machine.workplace() as place:
        work, toolchain = Path(name), find_toolchain(target)
        on_step("prepare")
        _link(artifact, toolchain, work / _PROGRAM, level, per_kernel)
        place.put(work / _PROGRAM, _PROGRAM, executable=True)
        files = _put_networks(artifact, there, work, place)
        on_step("bench")
        printed = place.run(
            (
                _PROGRAM,
                str(rounds),
                ",".join(map(str, pinned)) or _ANY_CORE,
                str(_counters_of(before, pinned)),
                ",".join(map(str, threads)),
                *(part for peer, file in files for part in (peer.value, file)),
            ),
            TIMEOUT_S + _PATIENCE_S * rounds * len(threads) * (1 + len(files)),
            env={**level_variable(level), **_PEERS_VARIABLES},
        )
        found = _read(printed)
        kernels: tuple[KernelTime, ...] = ()
        if per_kernel:
            on_step("peak")
            peak_gflops = measure_peak_gflops(toolchain, machine, pinned[0] if pinned else None)
            kernels = tuple(kernel_times(manifest.kernels, found.steps_ns, peak_gflops))
    after = read_facts(machine)
    ours = {manifest.name: artifact.folder.name}
    latencies = (replace(each, name=ours.get(each.name, each.name)) for each in found.latencies)
    first = pinned[0] if pinned else None
    return BoardBench(
        machine=machine.name,
        system=before.system,
        cpu=machine.cpu().model,
        emulated=machine.emulated,
        cores=pinned,
        kinds=tuple(before.kind_of(core).name for core in pinned),
        latencies=tuple(latencies),
        kernels=kernels,
        missing=tuple(peer.value for peer in peers if peer not in there),
        no_counters=found.no_counters or None,
        before=None if first is None else Condition.of(before, first),
        after=None if first is None else Condition.of(after, first),
        held_back=None if first is None else _held_back(before, after, first, found),
    )


def _choose_cores(
    machine: Machine, facts: Facts, wanted: Sequence[int], most: int
) -> tuple[int, ...]:
    """Cores for `most` threads; none where the machine does not say what it has."""
    there = facts.fastest_first
    if not there:
        return ()
    for core in wanted:
        if core not in there:
            raise DeployError(
                f"`{machine.name}` has no core `{core}`",
                hint=f"--cores {','.join(map(str, there))}",
            )
    cores = tuple(wanted) or there
    if len(cores) < most:
        raise DeployError(
            f"`{most}` threads are more than the `{len(cores)}` cores of `{machine.name}`",
            hint=f"--threads {len(cores)}",
        )
    return cores[: None if wanted else most]


def _link(
    artifact: Artifact, toolchain: Toolchain, program: Path, level: str | None, per_kernel: bool
) -> None:
    sources: tuple[Path, ...] = (CSRC / "bench.c",)
    flags: tuple[str, ...] = ()
    if per_kernel:
        write_program_header(artifact, program.parent)
        sources += (LIBRARY_CSRC / "profile.c",)
        flags = (f"-DSTEPS={len(artifact.manifest.kernels)}", f"-I{LIBRARY_CSRC}")
    link_around(artifact, toolchain, sources, program, level, flags)


def _put_networks(
    artifact: Artifact, peers: Sequence[Peer], work: Path, place: Workplace
) -> list[tuple[Peer, str]]:
    """The network for each of `peers`, and what times it there: (peer, the name of its file)."""
    if not peers:
        return []
    from levit_deploy.verify.peer_network import network_file, random_network

    network = random_network(artifact)
    files = [(peer, network_file(peer, network, work)) for peer in peers]
    for file in {file for _, file in files}:
        place.put(file, file.name)
    place.put(Path(latency_worker.__file__), "latency_worker.py")
    return [(peer, file.name) for peer, file in files]


def _counters_of(facts: Facts, cores: Sequence[int]) -> int:
    """The kernel's number of the counters that the first core has; 0 where all have the same."""
    return next((kind for kind, of in facts.pmus.items() if cores[:1] and cores[0] in of), 0)


def _read(printed: str) -> _Printed:
    hint = "compile the model again"
    return from_plain(
        _Printed, parse_json(printed.encode(), _PROGRAM, hint=hint), _PROGRAM, hint=hint
    )


def _held_back(before: Facts, after: Facts, core: int, found: _Printed) -> str | None:
    clocks = (latency.lowest_mhz for latency in found.latencies)
    return held_back(before, after, core, min(filter(None, clocks), default=None))
