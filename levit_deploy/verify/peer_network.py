"""The network of an artifact for other runtimes: each in the file that it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from levit_deploy.export.export_model import export_model
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import get_spec
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.peer import Peer


def random_network(artifact: Artifact) -> Levit:
    """The network of the artifact with random weights, ready for inference."""
    manifest = artifact.manifest
    spec = get_spec(manifest.model)
    torch.manual_seed(0)
    sized = replace(spec, image_size=manifest.image_size, classes=manifest.classes)
    return Levit(replace(sized, in_chans=manifest.card.in_chans)).eval()


def network_file(peer: Peer, network: Levit, work: Path) -> Path:
    """What `peer` runs, in the folder `work`."""
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
