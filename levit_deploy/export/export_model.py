"""Trained LeViT -> ExportedModel: fold, write ONNX, simplify, check, compare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from levit_deploy.export.agreement import check_against_reference
from levit_deploy.export.exported import ExportedModel, Precision
from levit_deploy.export.fold_model import fold_model
from levit_deploy.export.folded import FoldedLevit
from levit_deploy.export.graph import build_graph
from levit_deploy.export.structure import check_structure, simplify
from levit_deploy.models.reference import Levit

PROBE_IMAGES = 2


def export_model(net: Levit, *, name: str, weights_digest: str) -> ExportedModel:
    """Export a network with its weights loaded; the same weights give the same bytes.

    The result has agreed with `net` through ONNX Runtime on images of noise.
    `weights_digest`: canonical SHA-256 of the weights, hexadecimal.
    Raises DeployError if a BatchNorm is left, a folded weight is not finite in float32, the graph
    holds anything but what `structure.py` allows, or the logits differ.
    """
    spec = net.spec
    exported = ExportedModel(
        name=name,
        graph=_checked_graph(fold_model(net)),
        precision=Precision.FP32,
        image_size=spec.image_size,
        classes=spec.classes,
        normalization=spec.normalization,
        weights_digest=weights_digest,
    )
    check_against_reference(exported, net, _noise(spec.image_size))
    return exported


def with_weights(exported: ExportedModel, model: FoldedLevit) -> ExportedModel:
    """The same export with the weights of `model`, such as its own after equalization:
    `with_weights(exported, scale_stream(read_graph(exported.graph), stream, factors))`.
    """
    return replace(exported, graph=_checked_graph(model))


def _checked_graph(model: FoldedLevit) -> onnx.ModelProto:
    graph = simplify(build_graph(model))
    check_structure(graph)
    return graph


def _noise(image_size: int) -> NDArray[np.float32]:
    shape = (PROBE_IMAGES, 3, image_size, image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
