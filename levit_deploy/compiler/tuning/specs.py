"""Which kernels a model has: it is lowered, and what that asks the tiles for is noted."""

from __future__ import annotations

from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.lower.network import lower_network
from levit_deploy.compiler.tuning.legality import Spec
from levit_deploy.compiler.tuning.tile_table import TileTable
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.target import Target


def distinct_specs(exported: ExportedModel, target: Target) -> list[Spec]:
    """The specs of all generated kernels, in the order in which the model calls them."""
    asked = _Asked()
    lower_network(exported.network, exported.name, target, asked, exported.normalization)
    return list(asked.specs)


class _Asked(TileTable):
    """The default tiles, and a list of the specs that they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[Spec, None] = {}

    def gemm(self, spec: GemmSpec, target: Target) -> GemmTile:
        self.specs[spec] = None
        return super().gemm(spec, target)

    def head(self, spec: HeadSpec, target: Target) -> GemmTile:
        self.specs[spec] = None
        return super().head(spec, target)

    def conv(self, spec: ConvSpec, target: Target) -> ConvTile:
        self.specs[spec] = None
        return super().conv(spec, target)

    def attention(self, spec: AttentionSpec, target: Target) -> AttentionTile:
        self.specs[spec] = None
        return super().attention(spec, target)
