"""tune on two boards behind sshd: one kernel, compiled here and timed there."""

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tiles.table import load_tiles
from levit_deploy.compiler.tuning import batch
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import get_target
from levit_deploy.tune import model
from tests.boards.sshd import Sshd
from tests.cli.conftest import Cli

GEMM = GemmSpec(16, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
SPECS = [GEMM, replace(GEMM, rows=4)]


@pytest.fixture
def boards(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, ...]]:
    """Two of them, each with its own home, and one client that knows both."""
    one, two = (Sshd(tmp_path_factory.mktemp("sshd")) for _ in range(2))
    for sshd in (one, two):
        home = sshd.folder / "home"
        home.mkdir()
        sshd.profile.write_text(f"export HOME={home}\n")
        sshd.start()
    config = one.folder / "ssh_config"
    config.write_text(
        f"Host other\n HostName 127.0.0.1\n Port {two.port}\n IdentityFile {two.folder}/user_key\n"
        f" UserKnownHostsFile {two.known_hosts}\n{config.read_text()}"
    )
    monkeypatch.setenv("PATH", f"{one.bin}:{os.environ['PATH']}")
    yield ("--on", "ssh://board", "--on", "ssh://other")
    one.stop()
    two.stop()


def test_two_boards_tune(cli: Cli, boards: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "CALM", 1e9)
    monkeypatch.setattr(batch, "COLD_BYTES", 1 << 16)
    monkeypatch.setattr(model, "distinct_specs", lambda exported, target: SPECS)
    args = ("tune", "--target", "host", "levit_tiny", "--candidates", "2", *boards, "--json")
    done = cli.run(*args)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    host = get_target("host")
    table = load_tiles(Path("tiles.json"))
    assert {spec for _, spec in table.rows} == set(SPECS)
    for row in rows:
        assert row["target"] == host.base
        assert row["microseconds"] > 0
        by, conditions = row["measured_on"].split("; ")
        assert by.startswith(f"{read_cpu().model}, levit-deploy ")
        board, system = conditions.split(", ")[:2]
        assert board in ("ssh://board", "ssh://other")
        assert system == f"Linux {os.uname().release}"
    assert "boards    ssh://board, ssh://other" in done.stderr
    gc.collect()  # or the connections of the command before would hold the boards
    again = cli.run(*args)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == rows
    assert " s left: " not in again.stderr
