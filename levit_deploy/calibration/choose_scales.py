"""Statistics, Recipe -> CalibrationTable: decides everything, changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.statistics import TensorStatistics, linear_layers
from levit_deploy.calibration.table import (
    LEVELS,
    WEIGHT_LIMIT,
    CalibrationImages,
    CalibrationTable,
    FloatTensor,
    LayerScale,
    TensorScale,
)
from levit_deploy.export.exported import ExportedModel


def choose_scales(
    exported: ExportedModel,
    statistics: Mapping[str, TensorStatistics],
    images: ImageSet,
    recipe: Recipe,
) -> CalibrationTable:
    """Decide how each layer's input and weights become 8 bits."""
    layers = linear_layers(exported.graph)
    weights = {t.name: numpy_helper.to_array(t) for t in exported.graph.graph.initializer}
    readers: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        readers[layer.input] = (*readers.get(layer.input, ()), layer.name)
    return CalibrationTable(
        model=exported.name,
        weights_digest=exported.weights_digest,
        recipe=recipe.name,
        images=CalibrationImages(
            images.source, len(images), images.skipped, images.preprocessing, images.digest
        ),
        streams=(),
        tensors=tuple(
            _tensor(name, names, statistics[name], recipe) for name, names in readers.items()
        ),
        layers=tuple(
            LayerScale(layer.name, as_floats(weight_scales(weights[f"{layer.name}.weight"])))
            for layer in layers
        ),
        kept_float=tuple(
            FloatTensor(node.name, "the stem in 8 bits costs accuracy")
            for node in exported.graph.graph.node
            if node.op_type == "Conv"
        ),
    )


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitude of each output channel over 127; weight (in, out) -> (out,)."""
    largest = np.abs(weight).max(axis=0)
    return np.where(largest > 0, largest / WEIGHT_LIMIT, 1).astype(np.float32)


def as_floats(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(values.astype(np.float64).tolist())


def _tensor(
    name: str, readers: tuple[str, ...], seen: TensorStatistics, recipe: Recipe
) -> TensorScale:
    low, high = float(seen.low.min()), float(seen.high.max())
    scale, zero_point = affine_scale(low, high)
    return TensorScale(name, readers, scale, zero_point, low, high, (low, high), recipe.observer)


def affine_scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point with which 0..255 spans `low`..`high` and zero, zero being exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / LEVELS)) or 1.0
    return scale, round(-low / scale)
