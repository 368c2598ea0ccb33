"""tune: a file that is whole at any moment, that a search goes on with, and that compile reads."""

import gc
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tiles.table import TileRow, TileTable, load_tiles
from levit_deploy.compiler.tuning import batch
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import get_target
from levit_deploy.tune import model
from tests.boards.sshd import OnBoard
from tests.cli.conftest import Cli, Spawner

HOST = get_target("host")
SPEC = GemmSpec(16, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
OTHER = replace(SPEC, rows=4)
TILE = GemmTile(3, HOST.float_lanes, HOST.float_lanes, 2)
ROW = TileRow(HOST.base or "host", SPEC, TILE, "a CPU", 1.0)


def tune_args(path: Path, *args: str) -> tuple[str | Path, ...]:
    """A search that builds and times nothing, for it is fast."""
    if read_cpu().runs(get_target("arm64")):
        pytest.skip("this machine would measure")
    args = ("--target", "arm64", "levit_tiny", "--candidates", "2", *args)
    return ("tune", *args, "-o", path)


def rows_in(path: Path) -> int:
    return len(load_tiles(path).rows) if path.exists() else 0


def stop_after(rows: int, process: subprocess.Popen[str], path: Path, how: signal.Signals) -> str:
    """End the process once the file has so many rows; returns its stderr."""
    while process.poll() is None and rows_in(path) < rows:
        time.sleep(0.01)
    process.send_signal(how)
    return process.communicate(timeout=120)[1]


def test_a_search_goes_on_where_it_stopped(cli: Cli, spawner: Spawner):
    path = cli.folder / "tiles.json"
    with spawner.start(*tune_args(path)) as process:
        stop_after(2, process, path, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    known = [replace(row, ratio=0.123) for row in load_tiles(path).rows.values()]
    TileTable(known).save(path)

    with spawner.start(*tune_args(path)) as process:
        stderr = stop_after(len(known) + 1, process, path, signal.SIGINT)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "error: interrupted"
    made = rows_in(path)

    done = cli.run(*tune_args(path, "--json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == rows_in(path) > made > len(known) >= 2
    assert sum(row["ratio"] == 0.123 for row in rows) == len(known)
    assert all(row["measured_on"].startswith("modelled") for row in rows)
    assert done.stderr.count("s left: ") == len(rows) - made


def test_a_file_that_is_none_of_tiles_is_left_alone(cli: Cli):
    path = cli.folder / "notes.txt"
    path.write_text("my notes")
    done = cli.run(*tune_args(path))
    assert done.returncode == 1
    assert "is not JSON" in done.stderr
    assert "hint: search again with `levit-deploy tune`" in done.stderr
    assert path.read_text() == "my notes"


def test_a_file_that_cannot_be_written_is_told_of_first(cli: Cli):
    done = cli.run(*tune_args(cli.folder / "nowhere" / "tiles.json"))
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "hint: choose another file: -o FILE" in done.stderr


def test_compile_uses_the_tiles_of_a_file(cli: Cli):
    TileTable([ROW]).save(cli.folder / "tiles.json")
    done = cli.compile("--tiles", "tiles.json", "--json")
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)["kernels"]
    tiles = {kernel["tile"] for kernel in kernels if kernel["shape"].startswith("16x64x32 hards")}
    assert tiles == {str(TILE)}


@pytest.mark.parametrize("damage", ["missing", "text", "tile"])
def test_compile_refuses_what_it_cannot_use(cli: Cli, damage: str):
    path = cli.folder / "tiles.json"
    if damage == "text":
        path.write_text("{}")
    elif damage == "tile":
        TileTable([replace(ROW, tile=replace(TILE, mr=99))]).save(path)
    done = cli.compile("--tiles", path)
    assert done.returncode == 1
    assert "hint: " in done.stderr
    assert "levit-deploy tune" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_boards_tune(cli: Cli, on_board: OnBoard, monkeypatch: pytest.MonkeyPatch):
    """Two kernels are compiled here and timed there; a second command finds them in the file."""
    boards = (on_board.url, on_board.other_url)
    monkeypatch.setattr(batch, "CALM", 1e9)
    monkeypatch.setattr(batch, "COLD_BYTES", 1 << 16)
    monkeypatch.setattr(model, "distinct_specs", lambda exported, target: [SPEC, OTHER])
    on = [word for url in boards for word in ("--on", url)]
    args = ("tune", "--target", "host", "levit_tiny", "--candidates", "2", *on, "--json")
    done = cli.run(*args)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    table = load_tiles(Path("tiles.json"))
    assert {spec for _, spec in table.rows} == {SPEC, OTHER}
    for row in rows:
        assert row["target"] == HOST.base
        assert row["microseconds"] > 0
        by, conditions = row["measured_on"].split("; ")
        assert by.startswith(f"{read_cpu().model}, levit-deploy ")
        board, system = conditions.split(", ")[:2]
        assert board in boards
        assert system == f"Linux {os.uname().release}"
    assert f"boards    {', '.join(boards)}" in done.stderr
    gc.collect()  # or the connections of the command before would hold the boards
    again = cli.run(*args)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == rows
    assert " s left: " not in again.stderr
