"""Which tile a kernel gets: a row that was found by search, or else the family's own rule.

Rows are data: JSON files of this folder's `rows/`, and what a search wrote elsewhere.

    {"schema_version": 1, "rows": [
     {"family": "gemm", "target": "x86-64-v3", "spec": {"rows": 196, ...}, "tile": {"mr": 6, ...},
      "measured_on": "AMD EPYC 7R13, levit-deploy 0.1.0", "microseconds": 41.0, "ratio": 0.93}
    ]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, cast

from levit_deploy.compiler.kernels.family import CutBy
from levit_deploy.compiler.tiles.registry import FAMILIES, Spec, Tile, family_of, is_legal
from levit_deploy.errors import DeployError
from levit_deploy.files import write_files
from levit_deploy.records import from_plain, load_record
from levit_deploy.targets.target import Target

PACKAGED = Path(__file__).parent / "rows"

_HINT = "search again with `levit-deploy tune`"

_TileT = TypeVar("_TileT")


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

    `shares_constants`: kernels of large constants are cut so that other targets of the architecture
    read the same ones; no row says how. `apart`: names of layers whose kernels are not.
    """

    def __init__(
        self,
        rows: Iterable[TileRow] = (),
        *,
        shares_constants: bool = False,
        apart: Collection[str] = (),
    ) -> None:
        self.shares_constants = shares_constants
        self.apart = apart
        self.rows = {(row.target, row.spec): row for row in rows}

    def tile(self, spec: CutBy[_TileT], target: Target, layer: str | None = None) -> _TileT:
        """How the kernel of `spec` is cut on `target`, for the layer of a name."""
        assert isinstance(spec, Spec)
        shares = self.shares_constants and layer not in self.apart
        shared_tile = family_of(spec).shared_tile if shares else None
        if shared_tile:
            return cast(_TileT, shared_tile(spec, target))
        row = self.rows.get((target.name, spec)) or self.rows.get((target.base or "", spec))
        if row is not None and not is_legal(row.tile, spec, target):
            raise DeployError(
                f"tile `{row.tile}` of `{spec}` is impossible on `{target.name}`",
                hint=f"remove the row, or {_HINT}",
            )
        tile = row.tile if row else family_of(spec).default_tile(spec, target)
        return cast(_TileT, tile)  # the spec's class says which

    def sharing(self, apart: Collection[str]) -> TileTable:
        """The same rows, of kernels that share constants, but for those of the layers `apart`."""
        return TileTable(self.rows.values(), shares_constants=True, apart=apart)

    def save(self, path: Path) -> None:
        """Write all rows, one a line, in a fixed order; the file is whole at any moment.

        Raises DeployError if it cannot be written.
        """
        lines = [
            json.dumps({"family": family_of(row.spec).name, **asdict(row)})
            for row in self.rows.values()
        ]
        rows = ",\n ".join(sorted(lines))
        text = f'{{"schema_version": {_TileFile.SCHEMA_VERSION}, "rows": [\n {rows}\n]}}\n'
        write_files({path: text.encode()})


@dataclass(frozen=True)
class _FileRow:
    """A row as it is in a file: the family says what spec and tile are."""

    family: str
    target: str
    spec: Mapping[str, object]
    tile: Mapping[str, object]
    measured_on: str
    microseconds: float | None
    ratio: float


@dataclass(frozen=True)
class _TileFile:
    SCHEMA_VERSION: ClassVar[int] = 1

    rows: tuple[_FileRow, ...]


def load_tiles(*paths: Path) -> TileTable:
    """The rows of all files; of two rows for the same kernel the later one counts.

    Raises DeployError if a file cannot be read, is of another schema version, or a row is not one.
    """
    return TileTable(row for path in paths for row in _read(path))


def packaged_tiles(*more: Path) -> TileTable:
    """The rows that ship with the package, then those of the files `more`."""
    return load_tiles(*sorted(PACKAGED.glob("*.json")), *more)


def _read(path: Path) -> list[TileRow]:
    rows = load_record(_TileFile, path, hint=_HINT).rows
    return [_read_row(row, str(path), f"rows[{index}]") for index, row in enumerate(rows)]


def _read_row(row: _FileRow, source: str, at: str) -> TileRow:
    family = next((family for family in FAMILIES if family.name == row.family), None)
    if family is None:
        raise DeployError(f"`{source}`: `{at}.family` is `{row.family}`, no kernel", hint=_HINT)
    return TileRow(
        target=row.target,
        spec=from_plain(family.spec, row.spec, source, hint=_HINT, at=f"{at}.spec"),
        tile=from_plain(family.tile, row.tile, source, hint=_HINT, at=f"{at}.tile"),
        measured_on=row.measured_on,
        microseconds=row.microseconds,
        ratio=row.ratio,
    )
