"""Exported LeViTs in 8 bits, calibrated on noise, for compiler tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES, Recipe
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.targets.table import get_target
from tests.compiler.levit import exported_tiny

PLAIN = RECIPES["w8a8-plain"]


@functools.cache
def quantized_tiny(recipe: Recipe = DEFAULT_RECIPE) -> ExportedModel:
    """Every linear layer in 8 bits; by default with a factor for each channel of its input."""
    return _quantized(exported_tiny(), recipe)


@functools.cache
def quantized_attention(recipe: Recipe = DEFAULT_RECIPE) -> ExportedModel:
    """Attention in 8 bits too, on grids of 36, 9 and 4 tokens."""
    return _quantized(exported_tiny(image_size=96, key_dim=16), recipe)


def _quantized(model: ExportedModel, recipe: Recipe) -> ExportedModel:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 40, 40, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "noise.npz")
        np.savez(file, images=pixels)
        images = open_images(str(file), DEMO_PREPROCESSING, model.image_size)
        return quantize_model(model, images, recipe)[0]


@functools.cache
def compiled_int8_tiny(target_name: str = "x86-64-v3") -> Program:
    return compile_model(quantized_tiny(), get_target(target_name))


@functools.cache
def compiled_int8_attention(target_name: str = "x86-64-v3") -> Program:
    return compile_model(quantized_attention(), get_target(target_name))


def partly_float_tiny(ending: str) -> ExportedModel:
    """The layers whose names end with `ending` stay float."""
    names = [node.name for node in exported_tiny().graph.graph.node if node.op_type == "MatMul"]
    layers = [n.removesuffix(".matmul") for n in names if n.endswith(".matmul")]
    kept = tuple(name for name in layers if name.endswith(ending))
    assert kept
    return quantized_tiny(replace(PLAIN, float_layers=kept))
