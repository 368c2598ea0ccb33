"""Which tile a kernel gets."""

from __future__ import annotations

from levit_deploy.compiler.kernels.gemm import GemmSpec, GemmTile, default_tile
from levit_deploy.compiler.kernels.head import HeadSpec, default_head_tile
from levit_deploy.targets.target import Target


class TileTable:
    def gemm(self, spec: GemmSpec, target: Target) -> GemmTile:
        return default_tile(spec, target)

    def head(self, spec: HeadSpec, target: Target) -> GemmTile:
        return default_head_tile(spec, target)
