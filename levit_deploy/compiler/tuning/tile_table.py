"""Which tile a kernel gets: a row that was found by search, or else the family's own rule.

Rows are data: JSON files of this folder's `tiles/`, and what a search wrote elsewhere.

    {"schema_version": 1, "rows": [
     {"family": "gemm", "target": "x86-64-v3", "spec": {"rows": 196, ...}, "tile": {"mr": 6, ...},
      "measured_on": "AMD EPYC 7R13, levit-deploy 0.1.0", "microseconds": 41.0, "ratio": 0.93}
    ]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from levit_deploy.compiler.kernels import head
from levit_deploy.compiler.kernels.attention import spec as attention
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv import tile as conv
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.gemm import float32 as gemm
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.tuning.json_dataclass import from_json
from levit_deploy.compiler.tuning.legality import is_legal
from levit_deploy.errors import DeployError
from levit_deploy.targets.target import Target

SCHEMA_VERSION = 1
PACKAGED = Path(__file__).parent / "tiles"

Spec = GemmSpec | HeadSpec | ConvSpec | AttentionSpec
Tile = GemmTile | ConvTile | AttentionTile

FAMILIES: dict[str, tuple[type[Spec], type[Tile]]] = {
    "gemm": (GemmSpec, GemmTile),
    "head": (HeadSpec, GemmTile),
    "conv": (ConvSpec, ConvTile),
    "attention": (AttentionSpec, AttentionTile),
}

_TileT = TypeVar("_TileT", GemmTile, ConvTile, AttentionTile)


@dataclass(frozen=True)
class TileRow:
    """The tile of one kernel on one target.

    `measured_on`: the CPU, or `modelled`, and the tool's version. `microseconds`: of one run, one
    thread; None where it was modelled. `ratio`: to the family's own rule, below 1 is faster.
    """

    target: str
    spec: Spec
    tile: Tile
    measured_on: str
    microseconds: float | None
    ratio: float = 1.0


class TileTable:
    """Rows by target and spec; of two rows for the same kernel the later one counts.

    A board that has no row for a kernel uses the row of the target that it stands for. Every lookup
    raises DeployError if the row it finds is impossible on the target.
    """

    def __init__(self, rows: Iterable[TileRow] = ()) -> None:
        self.rows = {(row.target, row.spec): row for row in rows}

    def gemm(self, spec: GemmSpec, target: Target) -> GemmTile:
        return self._found(spec, target, GemmTile) or gemm.default_tile(spec, target)

    def head(self, spec: HeadSpec, target: Target) -> GemmTile:
        return self._found(spec, target, GemmTile) or head.default_tile(spec, target)

    def conv(self, spec: ConvSpec, target: Target) -> ConvTile:
        return self._found(spec, target, ConvTile) or conv.default_tile(spec, target)

    def attention(self, spec: AttentionSpec, target: Target) -> AttentionTile:
        return self._found(spec, target, AttentionTile) or attention.default_tile(spec, target)

    def _found(self, spec: Spec, target: Target, kind: type[_TileT]) -> _TileT | None:
        row = self.rows.get((target.name, spec)) or self.rows.get((target.base or "", spec))
        if row is None:
            return None
        if not isinstance(row.tile, kind) or not is_legal(row.tile, spec, target):
            raise DeployError(
                f"tile `{row.tile}` of `{spec}` is impossible on `{target.name}`",
                hint="remove the row, or search again with `levit-deploy tune`",
            )
        return row.tile

    def save(self, path: Path) -> None:
        """Write all rows, one a line, in a fixed order; the file is whole at any moment.

        Raises DeployError if it cannot be written.
        """
        family_of = {spec: family for family, (spec, _) in FAMILIES.items()}
        lines = [
            json.dumps({"family": family_of[type(row.spec)], **asdict(row)})
            for row in self.rows.values()
        ]
        rows = ",\n ".join(sorted(lines))
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            staged.write_text(f'{{"schema_version": {SCHEMA_VERSION}, "rows": [\n {rows}\n]}}\n')
            staged.replace(path)
        except OSError as error:
            raise DeployError(
                f"cannot write `{path}`: {error.strerror}", hint="choose another file with -o"
            ) from error
        finally:
            staged.unlink(missing_ok=True)


def load_tiles(*paths: Path) -> TileTable:
    """The rows of all files; of two rows for the same kernel the later one counts.

    Raises DeployError if a file cannot be read, is of another schema version, or a row is not one.
    """
    return TileTable(row for path in paths for row in _read(path))


def packaged_tiles(*more: Path) -> TileTable:
    """The rows that ship with the package, then those of the files `more`."""
    return load_tiles(*sorted(PACKAGED.glob("*.json")), *more)


def _read(path: Path) -> list[TileRow]:
    try:
        document = json.loads(path.read_text())
        version, rows = document["schema_version"], document["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeployError(
            f"`{path}` is not a file of tiles", hint="make one with `levit-deploy tune`"
        ) from error
    if version != SCHEMA_VERSION:
        raise DeployError(
            f"`{path}` has tile schema version `{version}`, expected `{SCHEMA_VERSION}`",
            hint="search again with this version of `levit-deploy tune`",
        )
    return [_read_row(path, number, row) for number, row in enumerate(rows, 1)]


def _read_row(path: Path, number: int, row: dict[str, object]) -> TileRow:
    try:
        spec_type, tile_type = FAMILIES[str(row["family"])]
        return TileRow(
            target=str(row["target"]),
            spec=from_json(spec_type, row["spec"]),
            tile=from_json(tile_type, row["tile"]),
            measured_on=str(row["measured_on"]),
            microseconds=None if (time := row["microseconds"]) is None else float(str(time)),
            ratio=float(str(row["ratio"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DeployError(
            f"row {number} of `{path}` is not a tile: `{error}`",
            hint="remove the row, or search again with `levit-deploy tune`",
        ) from error
