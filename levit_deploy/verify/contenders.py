"""An artifact and its peers, made ready to be timed: the same network, each in its own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from levit_deploy.export.export_model import export_model
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import get_spec
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
    network = random_network(artifact) if any(peer.installed for peer in chosen) else None
    for peer in chosen:
        if network is not None and peer.installed:
            file = _network_file(peer, network, work)
            contenders.append(Contender(peer.value, peer, file, threads, *shape))
    return contenders, [peer.value for peer in chosen if not peer.installed]


def random_network(artifact: Artifact) -> Levit:
    """The network of the artifact with random weights, ready for inference."""
    manifest = artifact.manifest
    spec = get_spec(manifest.model)
    torch.manual_seed(0)
    sized = replace(spec, image_size=manifest.image_size, classes=manifest.classes)
    return Levit(replace(sized, in_chans=manifest.card.in_chans)).eval()


def _network_file(peer: Peer, network: Levit, work: Path) -> Path:
    if peer is Peer.TORCH:
        return _torch_file(network, work / "network.pt")
    file = work / "network.onnx"
    if not file.exists():
        export_model(network, name=network.spec.name, weights_digest="0" * 64).save(file)
    return file


def _torch_file(network: Levit, file: Path) -> Path:
    size = network.spec.image_size
    example = torch.zeros(1, network.spec.in_chans, size, size)
    torch.jit.trace(network, example).save(file)  # type: ignore[no-untyped-call]
    return file
