"""Which kernels a model has: it is lowered, and what that asks the tiles for is noted."""

from __future__ import annotations

from typing import TypeVar

from levit_deploy.compiler.kernels.family import CutBy
from levit_deploy.compiler.lower.network import lower_network
from levit_deploy.compiler.tiles.registry import Spec
from levit_deploy.compiler.tiles.table import TileTable
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.target import Target

_TileT = TypeVar("_TileT")


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

    def tile(self, spec: CutBy[_TileT], target: Target, layer: str | None = None) -> _TileT:
        tile = super().tile(spec, target, layer)
        assert isinstance(spec, Spec)
        self.specs[spec] = None
        return tile
