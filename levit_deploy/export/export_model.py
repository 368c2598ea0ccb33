"""Trained LeViT -> ExportedModel: fold, write ONNX, simplify, check, read back, compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.export.agreement import check_against_reference
from levit_deploy.export.exported import ExportedModel
from levit_deploy.export.simplify import check, infer_shapes, simplify
from levit_deploy.export.write_network import write_network
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.card import ModelCard, default_card
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.images import normalize
from levit_deploy.models.key_names import Origin
from levit_deploy.models.pictures import package_pictures
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import ModelSpec
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.half import in_half
from levit_deploy.network.network import Network, Precision, rounded

PROBE_IMAGES = 4


def export_model(
    net: Levit,
    *,
    name: str,
    weights_digest: str,
    card: ModelCard | None = None,
    pictures: NDArray[np.uint8] | None = None,
) -> ExportedModel:
    """Export a network with its weights loaded; the same weights give the same bytes.

    The result has agreed with `net` through ONNX Runtime, on pictures and on noise. `card`: what
    stood beside the weights (default: how the original repository evaluates, and the spec's
    statistics). `weights_digest`: canonical SHA-256 of the weights, hexadecimal. `pictures`: uint8
    (n, size, size, channels), of which the first few are used (default: test images of the
    package).
    Raises DeployError if a BatchNorm is left, a folded weight is not finite in float32, or the
    logits differ.
    """
    spec = net.spec
    card = card or _own_card(spec)
    exported = export_network(
        rounded(fold_model(net)), name=name, card=card, weights_digest=weights_digest
    )
    if pictures is None:
        way = card.preprocessing
        pictures = package_pictures(way, spec.image_size, PROBE_IMAGES, spec.in_chans)
    for images in (normalize(pictures[:PROBE_IMAGES], card.normalization), _noise(spec)):
        check_against_reference(exported, net, images)
    return exported


def export_checkpoint(
    checkpoint: Checkpoint, pictures: NDArray[np.uint8] | None = None
) -> ExportedModel:
    """`export_model` of trained weights, under their name and with their card."""
    return export_model(
        checkpoint.build(),
        name=checkpoint.name,
        weights_digest=checkpoint.digest,
        card=checkpoint.card,
        pictures=pictures,
    )


def export_network(
    network: Network, *, name: str, card: ModelCard, weights_digest: str
) -> ExportedModel:
    """The ONNX form of a rounded network, from which that very network is read again.

    Raises DeployError if onnx or onnxsim made something else of it.
    """
    graph = write_network(network)
    graph = simplify(graph) if network.precision is Precision.FP32 else infer_shapes(graph)
    check(graph)
    exported = ExportedModel(name, graph, card, weights_digest)
    if exported.network != network:
        raise DeployError(
            f"the ONNX form of `{name}` is another network",
            hint="use the tested versions: `pip install onnx==1.23.2 onnxsim==0.8.1`",
        )
    return exported


def with_network(exported: ExportedModel, network: Network) -> ExportedModel:
    """The same model with another network, such as its own with integer arithmetic."""
    return export_network(
        network,
        name=exported.name,
        card=exported.card,
        weights_digest=exported.weights_digest,
    )


def with_half(exported: ExportedModel, format: HalfFormat) -> ExportedModel:
    """The 16-bit form of a float32 model.

    Raises DeployError if the model is not float32 or a weight does not fit into the format.
    """
    require_float32(exported)
    return with_network(exported, in_half(exported.network, format))


def require_float32(exported: ExportedModel) -> None:
    """Raise DeployError if the model has been rounded to fewer bits."""
    if exported.precision is not Precision.FP32:
        raise DeployError(
            f"`{exported.name}` is already {exported.precision}",
            hint="start from the fp32 export: `levit-deploy export levit_128s`",
        )


def _own_card(spec: ModelSpec) -> ModelCard:
    card = default_card(Origin.ORIGINAL, spec)
    return card.stated("the spec", mean=spec.normalization.mean, std=spec.normalization.std)


def _noise(spec: ModelSpec) -> NDArray[np.float32]:
    shape = (PROBE_IMAGES, spec.in_chans, spec.image_size, spec.image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
