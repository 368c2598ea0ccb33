"""Exported LeViTs with random weights, for compiler tests."""

from __future__ import annotations

import functools
from dataclasses import replace

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY, Activation, get_spec
from levit_deploy.targets.table import get_target
from tests.randomize import randomize


@functools.cache
def exported_tiny(
    image_size: int = 64,
    classes: int = 10,
    key_dim: int = 8,
    activation: Activation = Activation.HARD_SWISH,
    stem_stride: int = 16,
) -> ExportedModel:
    """With keys of 16 channels, as LeViT-128S has them, attention can be in 8 bits."""
    spec = replace(
        TINY,
        image_size=image_size,
        classes=classes,
        key_dim=key_dim,
        activation=activation,
        stem_stride=stem_stride,
    )
    net = randomize(Levit(spec), seed=image_size + classes)
    return export_model(net, name="tiny", weights_digest="00" * 32)


@functools.cache
def exported_variant(name: str, image_size: int = 224, classes: int = 1000) -> ExportedModel:
    spec = replace(get_spec(name), image_size=image_size, classes=classes)
    return export_model(randomize(Levit(spec), seed=1), name=name, weights_digest="00" * 32)


@functools.cache
def compiled_tiny(target_name: str = "x86-64-v3") -> Program:
    return compile_model(exported_tiny(), get_target(target_name))
