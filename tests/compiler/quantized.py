"""Exported LeViTs in 8 bits, calibrated on noise, for compiler tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.image_set import ImageSet, open_images
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import RECIPES
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.images import DEMO_PREPROCESSING
from levit_deploy.targets.table import get_target
from tests.compiler.levit import exported_tiny

RECIPE = RECIPES["w8a8-minmax"]


@functools.cache
def calibrated_tiny() -> CalibrationTable:
    """Every linear layer in 8 bits, activations by their range."""
    model = exported_tiny()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 40, 40, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "noise.npz")
        np.savez(file, images=pixels)
        images: ImageSet = open_images(str(file), DEMO_PREPROCESSING, model.image_size)
        return choose_scales(model, collect_statistics(model, images), images, RECIPE)


@functools.cache
def quantized_tiny() -> ExportedModel:
    return quantize(exported_tiny(), calibrated_tiny())


@functools.cache
def compiled_int8_tiny(target_name: str = "x86-64-v3") -> Program:
    return compile_model(quantized_tiny(), get_target(target_name))


def partly_float_tiny(ending: str) -> ExportedModel:
    """The layers whose names end with `ending` stay float."""
    table = calibrated_tiny()
    kept = {layer.layer for layer in table.layers if layer.layer.endswith(ending)}
    assert kept
    tensors = (
        replace(tensor, readers=tuple(r for r in tensor.readers if r not in kept))
        for tensor in table.tensors
    )
    partly = replace(
        table,
        layers=tuple(layer for layer in table.layers if layer.layer not in kept),
        tensors=tuple(tensor for tensor in tensors if tensor.readers),
    )
    return quantize(exported_tiny(), partly)


def factored_tiny() -> ExportedModel:
    """Every channel of every activation has a factor of its own."""
    model, table = exported_tiny(), calibrated_tiny()
    depths = {
        layer.layer: next(
            t.dims[0] for t in model.graph.graph.initializer if t.name == f"{layer.layer}.weight"
        )
        for layer in table.layers
    }
    rng = np.random.default_rng(4)
    tensors = tuple(
        replace(
            tensor,
            factors=tuple(rng.uniform(0.5, 2, depths[tensor.readers[0]]).astype(np.float32).tolist()),
            scale=float(np.float32(2 * tensor.scale)),
        )
        for tensor in table.tensors
    )
    return quantize(model, replace(table, tensors=tensors))
