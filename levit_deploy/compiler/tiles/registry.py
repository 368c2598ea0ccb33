"""Every kernel family that has tiles, as a row: what a tile table or a search needs of it."""

from __future__ import annotations

from typing import Any

from levit_deploy.compiler.kernels.attention.family import (
    ATTENTION,
    ATTENTION_BF16,
    ATTENTION_BFMMLA,
    ATTENTION_HALF,
    ATTENTION_INT8,
)
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.family import Family
from levit_deploy.compiler.kernels.gemm.family import (
    GEMM,
    GEMM_BF16,
    GEMM_BFMMLA,
    GEMM_HALF,
    GEMM_INT8,
    GEMM_STORED_HALF,
)
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HEAD, HeadSpec
from levit_deploy.targets.target import Target

Spec = GemmSpec | HeadSpec | ConvSpec | AttentionSpec
Tile = GemmTile | ConvTile | AttentionTile

# The classes of a row fit each other, which a list of different rows cannot say.
AnyFamily = Family[Any, Any]
FAMILIES: tuple[AnyFamily, ...] = (
    GEMM,
    GEMM_HALF,
    GEMM_BF16,
    GEMM_BFMMLA,
    GEMM_STORED_HALF,
    GEMM_INT8,
    HEAD,
    CONV,
    ATTENTION,
    ATTENTION_BF16,
    ATTENTION_BFMMLA,
    ATTENTION_HALF,
    ATTENTION_INT8,
)

_BY_SPEC = {family.spec: family for family in FAMILIES}


def family_of(spec: Spec) -> AnyFamily:
    """The family whose kernels compute `spec`."""
    return _BY_SPEC[type(spec)]


def is_legal(tile: Tile, spec: Spec, target: Target) -> bool:
    """Whether `tile` is one of the family of `spec` and possible on `target`."""
    family = family_of(spec)
    return isinstance(tile, family.tile) and family.is_legal(tile, spec, target)
