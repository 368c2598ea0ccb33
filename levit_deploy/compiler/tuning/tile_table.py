"""Which tile a kernel gets: a row that was found by search, or else the family's own rule.

Rows are data: JSON files of this folder's `tiles/`, and what a search wrote elsewhere.

    {"schema_version": 1, "rows": [
     {"family": "gemm", "target": "x86-64-v3", "spec": {"rows": 196, ...}, "tile": {"mr": 6, ...},
      "measured_on": "AMD EPYC 7R13, levit-deploy 0.1.0", "microseconds": 41.0, "ratio": 0.93}
    ]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from levit_deploy.compiler.kernels import head
from levit_deploy.compiler.kernels.attention import float32 as attention
from levit_deploy.compiler.kernels.attention.float32 import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv import kernel as conv
from levit_deploy.compiler.kernels.conv.kernel import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.gemm import float32 as gemm
from levit_deploy.compiler.kernels.gemm.float32 import GemmSpec, GemmTile
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.tuning.legality import is_legal
from levit_deploy.errors import DeployError
from levit_deploy.files import write_files
from levit_deploy.records import from_plain, load_record, to_plain
from levit_deploy.targets.target import Target

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
        return self._found(spec, target, GemmTile) or head.default_head_tile(spec, target)

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
            json.dumps({"family": family_of[type(row.spec)], **to_plain(row)}, allow_nan=False)
            for row in self.rows.values()
        ]
        rows = ",\n ".join(sorted(lines))
        text = f'{{"schema_version": {_TileFile.SCHEMA_VERSION}, "rows": [\n {rows}\n]}}\n'
        write_files({path: text.encode()})


def load_tiles(*paths: Path) -> TileTable:
    """The rows of all files; of two rows for the same kernel the later one counts.

    Raises DeployError if a file cannot be read, is of another schema version, or a row is not one.
    """
    return TileTable(row for path in paths for row in _read(path))


def packaged_tiles(*more: Path) -> TileTable:
    """The rows that ship with the package, then those of the files `more`."""
    return load_tiles(*sorted(PACKAGED.glob("*.json")), *more)


@dataclass(frozen=True)
class _Row:
    """A TileRow as it is written; `family` says what `spec` and `tile` are."""

    family: str
    target: str
    spec: object
    tile: object
    measured_on: str
    microseconds: float | None
    ratio: float


@dataclass(frozen=True)
class _TileFile:
    SCHEMA_VERSION: ClassVar[int] = 1

    rows: tuple[_Row, ...]


def _read(path: Path) -> Iterator[TileRow]:
    hint = "make one with `levit-deploy tune`"
    for index, row in enumerate(load_record(_TileFile, path, hint=hint).rows):
        at = f"rows[{index}]"
        if row.family not in FAMILIES:
            raise DeployError(
                f"`{path}`: `{at}.family` is `{row.family}`, which is none", hint=hint
            )
        spec, tile = FAMILIES[row.family]
        yield TileRow(
            target=row.target,
            spec=from_plain(spec, row.spec, str(path), hint=hint, at=f"{at}.spec"),
            tile=from_plain(tile, row.tile, str(path), hint=hint, at=f"{at}.tile"),
            measured_on=row.measured_on,
            microseconds=row.microseconds,
            ratio=row.ratio,
        )
