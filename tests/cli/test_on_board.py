"""verify, audit and compile with --on, against the board on the loopback."""

import json
from pathlib import Path

import pytest

from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import get_target
from tests.boards.sshd import OnBoard
from tests.cli.conftest import TINY_WEIGHTS, Cli, compile_args


@pytest.fixture
def board(on_board: OnBoard) -> str:
    return on_board.url


def test_verify(cli: Cli, fp32: Path, board: str):
    """The same figures as on this CPU, which is the board's; the report says where."""
    here = cli.run("verify", fp32, "--weights", TINY_WEIGHTS, "--json")
    there = cli.run("verify", fp32, "--weights", TINY_WEIGHTS, "--on", board, "--json")
    assert there.returncode == 0, there.stderr
    saved = json.loads((fp32 / "verify.json").read_text())
    assert saved["machine"] == f"{read_cpu().model}, ssh://board"
    checks = {check["what"]: check for check in json.loads(there.stdout)["checks"]}
    for function in ("run", "run_rgb8", "run_frame"):
        check = checks.pop(f"{function} in a C program on ssh://board")
        assert check["outcome"] == "passed"
        (same,) = (
            check
            for check in json.loads(here.stdout)["checks"]
            if check["what"] == f"{function} in a C program on this CPU"
        )
        assert check["comparison"] == same["comparison"]
    assert not checks


def test_compile_for_what_the_board_is(cli: Cli, board: str):
    done = cli.run(*compile_args("--on", board, "--json", target="auto"))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["target"] == get_target("host").base
    assert made["verification"]["machine"].endswith(", ssh://board")
