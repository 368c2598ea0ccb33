"""Search the tiles of every kernel of a model into a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from levit_deploy.compiler.tiles.table import TileRow, TileTable, load_tiles
from levit_deploy.compiler.tuning.specs import distinct_specs
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import ModelSpec
from levit_deploy.tune.search import Search


def tune_model(
    model: ModelSpec | ExportedModel,
    search: Search,
    output: Path,
    on_row: Callable[[TileRow, int, int], None] = lambda row, done, total: None,
) -> list[TileRow]:
    """The rows of all kernels of `model`, which are in the file `output` too.

    Rows that are there already, made on the same CPU by the same version, are not made again;
    others for the same kernels are replaced, all else stays. The file is written after each kernel.
    `on_row` gets each new row, how many kernels are done, and how many there are.
    Raises DeployError if `output` is no file of tiles or cannot be written, or if a search fails.
    """
    table = load_tiles(output) if output.exists() else TileTable()
    table.save(output)  # what cannot be written is told of before the long work
    specs = distinct_specs(_exported(model), search.target)
    rows = {spec: table.rows.get((search.row_target, spec)) for spec in specs}
    found = {spec: row for spec, row in rows.items() if row and search.has_made(row)}
    with closing(search.rows([spec for spec in specs if spec not in found])) as made:
        for row in made:
            found[row.spec] = row
            table = TileTable([*table.rows.values(), row])
            table.save(output)
            on_row(row, len(found), len(specs))
    return [found[spec] for spec in specs]


def _exported(model: ModelSpec | ExportedModel) -> ExportedModel:
    """The model itself, or one of its shape with random weights, in float32."""
    if isinstance(model, ExportedModel):
        return model
    torch.manual_seed(0)
    return export_model(Levit(model).eval(), name=model.name, weights_digest="0" * 64)
