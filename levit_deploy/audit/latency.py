"""How long the artifact takes for one image, on the machine that audits it."""

from __future__ import annotations

from collections.abc import Iterable

from levit_deploy.audit.result import Latency
from levit_deploy.machines.local import LocalMachine
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.latency import Contender, measure
from levit_deploy.verify.peer import Peer

ROUNDS = 10  # turns of about 50 ms; the least of them is what disturbed it least


def time_artifact(artifact: Artifact, machine: str) -> Latency | None:
    """In one thread of this CPU, called `machine`; None if it needs an emulator or another C
    library, of which times say nothing.

    Raises DeployError if the library dies.
    """
    if not LocalMachine().loads(artifact.manifest.device):
        return None
    library, size = artifact.shared_library, artifact.manifest.image_size
    contender = Contender(artifact.folder.name, Peer.ARTIFACT, library, 1, size)
    (found,) = measure([contender], ROUNDS)
    times = found.min_wall_us, found.median_wall_us, found.min_cpu_us
    return Latency(machine, found.images, *times)


def fastest(latencies: Iterable[Latency | None]) -> tuple[Latency, ...]:
    """Of each CPU model the one with the least minimum, by name."""
    best: dict[str, Latency] = {}
    for latency in filter(None, latencies):
        known = best.get(latency.machine)
        if known is None or latency.min_us < known.min_us:
            best[latency.machine] = latency
    return tuple(best[machine] for machine in sorted(best))
