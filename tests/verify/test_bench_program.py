"""The C program that times an artifact on any machine: that it measures, never how much."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.program import Entry
from levit_deploy.errors import DeployError
from levit_deploy.machines.facts import Facts, parse_facts
from levit_deploy.machines.local import LocalMachine
from levit_deploy.machines.machine import RunError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify import bench_program, peer_network
from levit_deploy.verify.bench_program import BoardBench, BoardLatency, bench_on
from levit_deploy.verify.peer import Peer
from tests.deployment import Builder
from tests.machine import foreign_target, prefix_for
from tests.machines.test_facts import typed

HERE = LocalMachine()


def plausible(latency: BoardLatency) -> bool:
    wall = 0 < latency.min_wall_us <= latency.median_wall_us
    return wall and 0 < latency.min_cpu_us <= latency.median_cpu_us


def test_numbers_of_threads_take_turns_and_every_kernel_is_timed(host_artifact: Artifact):
    most = min(2, len(os.sched_getaffinity(0)))
    threads = range(1, most + 1)
    found = bench_on(HERE, host_artifact, threads=threads, rounds=2, per_kernel=True)
    assert [latency.threads for latency in found.latencies] == list(threads)
    assert all(map(plausible, found.latencies))
    assert all(latency.images >= 2 for latency in found.latencies)
    assert len(found.cores) == most
    expected = [k for k in host_artifact.manifest.kernels if k.entry != Entry.RGB8]
    assert [(k.kind, k.shape) for k in found.kernels] == [(k.kind, k.shape) for k in expected]
    counts = [latency.instructions for latency in found.latencies]
    if found.no_counters:
        assert not any(counts)
    else:
        assert all(count and count > 100_000 for count in counts)


def test_another_cpu_is_emulated_or_refused(builder: Builder, tmp_path: Path):
    """Under an emulator nothing is counted and nothing pinned."""
    target = foreign_target()
    prefix_for(target)
    artifact = builder.artifact(builder.program(target), tmp_path)
    found = bench_on(None, artifact, threads=(1, 2), rounds=1)
    assert [latency.threads for latency in found.latencies] == [1, 2]
    assert all(map(plausible, found.latencies))
    assert found.emulated
    assert found.no_counters
    assert (found.cores, found.before, found.held_back) == ((), None, None)
    with pytest.raises(DeployError, match=f"does not run code for `{target.name}`"):
        bench_on(HERE, artifact, rounds=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": (1, 1000)}, "`1000` threads are more than the"),
        ({"cores": (1000,)}, "has no core `1000`"),
    ],
)
def test_cores_that_are_not_there(host_artifact: Artifact, options, message: str):
    with pytest.raises(DeployError, match=message) as raised:
        bench_on(HERE, host_artifact, rounds=1, **options)
    assert raised.value.hint


def test_a_peer_that_breaks_is_an_error_in_its_own_words(
    host_artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Its Python says that there is onnxruntime, and the package is broken."""
    package = tmp_path / "onnxruntime"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its library is missing')")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(peer_network, "random_network", lambda artifact: None)
    monkeypatch.setattr(peer_network, "network_file", lambda *given: package / "__init__.py")
    with pytest.raises(RunError, match="its library is missing"):
        bench_on(HERE, host_artifact, rounds=1, peers=(Peer.ONNXRUNTIME,))


def on_board(monkeypatch: pytest.MonkeyPatch, artifact: Artifact, *moments: Facts) -> BoardBench:
    """A measurement here, on a machine that says one after the other what it is like."""
    said = iter(moments)
    monkeypatch.setattr(bench_program, "read_facts", lambda machine: next(said))
    return bench_on(HERE, artifact, rounds=1)


def test_a_board_that_was_throttled_meanwhile(
    host_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
):
    before = typed("raspberry-pi-5")
    after = replace(before, throttled=0x50005, temperature_c=60.0)
    found = on_board(monkeypatch, host_artifact, before, after)
    assert found.held_back == "under-voltage, throttled"
    assert found.before is not None
    assert found.after is not None
    assert (found.before.governor, found.before.mhz) == ("performance", 2400)
    assert (found.before.temperature_c, found.after.temperature_c) == (48.25, 60.0)
    assert (found.cores, found.kinds) == ((0,), ("Cortex-A76",))


def test_a_board_that_says_nothing_of_itself(
    host_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench_program, "read_facts", lambda machine: parse_facts(""))
    found = bench_on(HERE, host_artifact, rounds=1, peers=(Peer.ONNXRUNTIME,))
    assert found.missing == ("onnxruntime",)
    assert len(found.latencies) == 1
    assert (found.cores, found.before) == ((), None)


def test_the_fastest_cores_come_first():
    board, count = typed("rk3399-musl"), 4
    assert bench_program._choose_cores(HERE, board, (), count) == (4, 5, 0, 1)
    assert bench_program._choose_cores(HERE, board, (3, 2), 1) == (3, 2)
    assert bench_program._counters_of(board, (4, 5, 0, 1)) == 8
    assert bench_program._counters_of(board, ()) == 0
