"""Trained LeViT -> ExportedModel: fold, write ONNX, simplify, check, read back, compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.export.agreement import check_against_reference
from levit_deploy.export.exported import ExportedModel
from levit_deploy.export.simplify import check, infer_shapes, simplify
from levit_deploy.export.write_network import write_network
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import Normalization
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.network import Network, Precision, rounded

PROBE_IMAGES = 2


def export_model(net: Levit, *, name: str, weights_digest: str) -> ExportedModel:
    """Export a network with its weights loaded; the same weights give the same bytes.

    The result has agreed with `net` through ONNX Runtime on images of noise.
    `weights_digest`: canonical SHA-256 of the weights, hexadecimal.
    Raises DeployError if a BatchNorm is left, a folded weight is not finite in float32, or the
    logits differ.
    """
    spec = net.spec
    exported = export_network(
        rounded(fold_model(net)),
        name=name,
        normalization=spec.normalization,
        weights_digest=weights_digest,
    )
    check_against_reference(exported, net, _noise(spec.image_size))
    return exported


def export_network(
    network: Network, *, name: str, normalization: Normalization, weights_digest: str
) -> ExportedModel:
    """The ONNX form of a rounded network, from which that very network is read again.

    Raises DeployError if onnx or onnxsim made something else of it.
    """
    graph = write_network(network)
    graph = simplify(graph) if network.precision is Precision.FP32 else infer_shapes(graph)
    check(graph)
    exported = ExportedModel(name, graph, normalization, weights_digest)
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
        normalization=exported.normalization,
        weights_digest=exported.weights_digest,
    )


def _noise(image_size: int) -> NDArray[np.float32]:
    shape = (PROBE_IMAGES, 3, image_size, image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
