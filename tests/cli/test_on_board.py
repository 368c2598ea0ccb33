"""verify, audit and compile with --on, against the board on the loopback."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.machines.ssh import SshBoard
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import get_target
from tests.boards.sshd import OnBoard
from tests.cli.conftest import TINY_WEIGHTS, Cli, Spawner, compile_args
from tests.cli.test_bad_input import assert_refused


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


def test_an_audit_goes_on_where_boards_are_lost(
    cli: Cli, fp32: Path, on_board: OnBoard, tmp_path: Path
):
    """The second one dies at the first images that it gets. Alone with it nothing is left; beside
    another that one takes over, and the report differs in nothing but where it ran."""
    audit = ("audit", fp32, "--weights", TINY_WEIGHTS, "--data", "demo", "--images", "70")
    assert cli.run(*audit, "-o", "here").returncode == 0
    on_board.profile(
        f'case "$BOARD $SSH_ORIGINAL_COMMAND" in "board2 "*prepare*) : >{tmp_path}/dead; esac\n'
        f"[ $BOARD = board ] || [ ! -e {tmp_path}/dead ] || kill -9 $PPID"
    )
    alone = cli.run(*audit, "-o", "there", "--on", on_board.other_url)
    assert_refused(alone, 1, "no board is left: `ssh://board2` is lost")
    assert "--resume" in alone.stderr
    (tmp_path / "dead").unlink()
    boards = ("--on", on_board.url, "--on", on_board.other_url)
    both = cli.run(*audit, "-o", "there", "--resume", *boards)
    assert both.returncode == 0, both.stderr
    assert "warning: `ssh://board2` is lost" in both.stderr
    here, there = (
        json.loads((tmp_path / name / "audit.json").read_text()) for name in ("here", "there")
    )
    model = read_cpu().model
    assert there["audited"].pop("machine") == f"{model}, ssh://board, {model}, ssh://board2"
    assert here["audited"].pop("machine") == model
    (line,) = there["audited"].pop("lost")
    assert line.startswith("`ssh://board2` is lost")
    assert line in both.stderr
    assert here["audited"].pop("lost") == []
    assert here.pop("latencies")
    assert there.pop("latencies") == []
    assert there == here


def test_interrupted(spawner: Spawner, fp32: Path, on_board: OnBoard):
    """Ctrl-C while it is at work there: a moment later nothing is left."""
    args = ("verify", fp32, "--weights", TINY_WEIGHTS, "--on", on_board.url)
    with spawner.start(*args) as process:
        while not list(on_board.tmp.rglob("run_images")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.endswith("error: interrupted\n")
    assert on_board.is_clean()


def test_another_cpu(cli: Cli, fp32: Path, board: str, monkeypatch: pytest.MonkeyPatch):
    """A board that is older than what the artifact was compiled for."""
    old = replace(read_cpu(), features=frozenset({"sse4_2", "popcnt"}), model="an old one")
    monkeypatch.setattr(SshBoard, "cpu", lambda self: old)
    for command in (("verify", fp32), ("audit", fp32, "--data", "demo")):
        refused = cli.run(*command, "--weights", TINY_WEIGHTS, "--on", board)
        assert_refused(refused, 1, "`ssh://board` (an old one) does not run code for")
        assert "hint: compile for it: --target x86-64\n" in refused.stderr


def test_no_board(cli: Cli, fp32: Path):
    assert_refused(
        cli.run("verify", fp32, "--on", "ssh://-oProxyCommand=id"), 2, "no URL of a board"
    )
    assert_refused(cli.run(*compile_args(target="auto")), 2, "name it with --on")
