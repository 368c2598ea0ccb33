import json
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.gemm.float32 import default_tile
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.tiles.table import (
    TileRow,
    TileTable,
    load_tiles,
    packaged_tiles,
)
from levit_deploy.errors import DeployError
from levit_deploy.targets.table import TARGETS, get_target
from tests.compiler.levit import exported_tiny

V3 = get_target("x86-64-v3")
GEMM = GemmSpec(196, 256, 128, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
HEAD = HeadSpec(tokens=16, channels=384, classes=1000)
CONV = ConvSpec(112, 16, 32, Activation.HARDSWISH, Source.PADDED, Destination.PADDED)
ATTENTION = AttentionSpec(4, 16, 32, query_side=14, key_side=14, stride=1, fused_qkv=True)

ROWS = [
    TileRow("x86-64-v3", GEMM, GemmTile(4, 24, 8, 8), "a CPU", 41.5),
    TileRow("x86-64-v3", HEAD, GemmTile(1, 40, 8, 2), "a CPU", 20.0),
    TileRow("x86-64-v3", CONV, ConvTile(3, (8, 8, 8, 8), 7, False), "a CPU", 99.0),
    TileRow("x86-64-v3", ATTENTION, AttentionTile(7, 4, 24, 4, 24), "a CPU", 80.0),
]


def test_without_a_row_the_family_decides() -> None:
    for target in TARGETS.values():
        assert TileTable().tile(GEMM, target) == default_tile(GEMM, target)


def test_a_row_holds_for_its_kernel_on_its_target() -> None:
    table = TileTable(ROWS)
    assert table.tile(GEMM, V3) == GemmTile(4, 24, 8, 8)
    assert table.tile(HEAD, V3) == GemmTile(1, 40, 8, 2)
    assert table.tile(CONV, V3) == ConvTile(3, (8, 8, 8, 8), 7, False)
    assert table.tile(ATTENTION, V3) == AttentionTile(7, 4, 24, 4, 24)
    other = replace(GEMM, residual=True)
    assert table.tile(other, V3) == default_tile(other, V3)
    arm64 = get_target("arm64")
    assert table.tile(GEMM, arm64) == default_tile(GEMM, arm64)


def test_a_board_uses_the_rows_of_its_target_unless_it_has_its_own() -> None:
    board, base = get_target("rpi4"), get_target("arm64")
    inherited = TileRow("arm64", GEMM, GemmTile(4, 8, 4, 4), "a board", 1.0)
    own = TileRow("rpi4", GEMM, GemmTile(4, 16, 4, 4), "a board", 1.0)
    assert TileTable([inherited]).tile(GEMM, board) == inherited.tile
    assert TileTable([inherited, own]).tile(GEMM, board) == own.tile
    assert TileTable([inherited, own]).tile(GEMM, base) == inherited.tile


def test_rows_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    TileTable(ROWS).save(path)
    assert load_tiles(path).rows == TileTable(ROWS).rows
    first = path.read_bytes()
    TileTable(reversed(ROWS)).save(path)
    assert path.read_bytes() == first


def test_the_later_file_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    TileTable(ROWS).save(one)
    better = replace(ROWS[0], tile=GemmTile(5, 16, 8, 4))
    TileTable([better]).save(two)
    assert load_tiles(one, two).tile(GEMM, V3) == better.tile


@pytest.mark.parametrize(
    "tile",
    [
        GemmTile(8, 16, 8, 4),  # 16 accumulators in 16 registers
        GemmTile(4, 16, 16, 4),  # lanes of another target
        GemmTile(4, 12, 8, 4),  # half a vector
        GemmTile(0, 16, 8, 4),
        GemmTile(4, 16, 8, 0),
        GemmTile(4, 24, 8, 4, shared=True),  # neither a part of a panel nor whole ones
        ConvTile(3, (8,), 7, False),  # another family
    ],
)
def test_impossible_gemm_tiles_are_refused(tile: GemmTile) -> None:
    with pytest.raises(DeployError, match="impossible on `x86-64-v3`"):
        TileTable([replace(ROWS[0], tile=tile)]).tile(GEMM, V3)


@pytest.mark.parametrize(
    "tile",
    [
        ConvTile(3, (8, 16), 7, False),  # wider than a register
        ConvTile(3, (8, 8, 8), 7, False),  # 24 does not divide 32
        ConvTile(4, (8, 8, 8, 8), 7, False),
        ConvTile(3, (), 7, False),
        ConvTile(3, (8,), 57, False),  # more bands than rows
    ],
)
def test_impossible_conv_tiles_are_refused(tile: ConvTile) -> None:
    with pytest.raises(DeployError, match="impossible"):
        TileTable([replace(ROWS[2], tile=tile)]).tile(CONV, V3)


@pytest.mark.parametrize(
    "tile",
    [
        AttentionTile(15, 4, 16, 4, 16),
        AttentionTile(7, 8, 16, 4, 16),
        AttentionTile(7, 4, 16, 4, 4),
    ],
)
def test_impossible_attention_tiles_are_refused(tile: AttentionTile) -> None:
    with pytest.raises(DeployError, match="impossible"):
        TileTable([replace(ROWS[3], tile=tile)]).tile(ATTENTION, V3)


def test_the_head_has_one_row() -> None:
    with pytest.raises(DeployError, match="impossible"):
        TileTable([replace(ROWS[1], tile=GemmTile(2, 16, 8, 4))]).tile(HEAD, V3)


def damaged(tmp_path: Path, change: str, value: object) -> Path:
    path = tmp_path / "tiles.json"
    TileTable(ROWS[:1]).save(path)
    document = json.loads(path.read_text())
    *parents, last = change.split(".")
    place = document if change == "schema_version" else document["rows"][0]
    for parent in parents:
        place = place[parent]
    place[last] = value
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("schema_version", 99, "schema version `99`"),
        ("family", "winograd", r"rows\[0\].family"),
        ("spec.rows", "many", r"rows\[0\].spec.rows` is `.*many"),
        ("spec.residual", 1, r"rows\[0\].spec.residual"),
        ("spec.activation", "swish", "swish"),
        ("spec.padding", 1, r"unknown field `rows\[0\].spec.padding`"),
        ("tile", [4, 24], r"rows\[0\].tile"),
        ("microseconds", "fast", r"rows\[0\].microseconds"),
    ],
)
def test_damaged_rows_are_named(change: str, value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        load_tiles(damaged(tmp_path, change, value))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1, 2]"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    for wrong in (path, tmp_path / "missing.json"):
        with pytest.raises(DeployError, match=wrong.name) as caught:
            load_tiles(wrong)
        assert caught.value.hint


def test_every_packaged_row_is_possible() -> None:
    table = packaged_tiles()
    for (target, spec), row in table.rows.items():
        assert table.tile(spec, get_target(target)) == row.tile


def test_the_compiler_uses_the_rows() -> None:
    model = exported_tiny()
    spec = GemmSpec(16, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
    symbols = [
        {call.symbol for call in compile_model(model, V3, tiles=TileTable(rows)).calls}
        for rows in ([], [TileRow("x86-64-v3", spec, GemmTile(3, 32, 8, 2), "a CPU", 1.0)])
    ]
    assert symbols[1] - symbols[0] == {"tiny_gemm_r16_n64_k32_hardswish_3x32_u2"}


def test_an_impossible_row_reaches_the_user_as_what_it_is() -> None:
    spec = HeadSpec(tokens=1, channels=64, classes=10)
    row = TileRow("x86-64-v3", spec, GemmTile(9, 32, 8, 2), "a CPU", 1.0)
    with pytest.raises(DeployError, match="impossible"):
        compile_model(exported_tiny(), V3, tiles=TileTable([row]))
