"""An artifact and its peers, made ready to be timed: the same network, each in its own form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.latency import Contender
from levit_deploy.verify.peer import Peer


def contenders_for(
    artifact: Artifact, peers: Sequence[str], threads: int, work: Path
) -> tuple[list[Contender], list[str]]:
    """(the artifact first and then the peers that are installed, the names of those that are not).

    Peers get the network that the manifest names, with fresh weights, in files under `work`.
    """
    manifest, library = artifact.manifest, artifact.shared_library
    shape = (manifest.image_size, manifest.card.in_chans)
    contenders = [Contender(artifact.folder.name, Peer.ARTIFACT, library, threads, *shape)]
    chosen = [Peer(name) for name in peers]
    installed = [peer for peer in chosen if peer.installed]
    if installed:
        from levit_deploy.verify.peer_network import network_file, random_network

        network = random_network(artifact)
        for peer in installed:
            file = network_file(peer, network, work)
            contenders.append(Contender(peer.value, peer, file, threads, *shape))
    return contenders, [peer.value for peer in chosen if not peer.installed]
