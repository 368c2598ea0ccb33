"""`bench --on` and `boards`, against an sshd on the loopback."""

import json
import sys
from pathlib import Path

import pytest

from levit_deploy.models.spec import FAMILY, TINY
from levit_deploy.runtime.artifact import Artifact
from tests.boards.sshd import OnBoard
from tests.cli.conftest import Cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FAMILY, TINY.name, TINY)
    return Cli(tmp_path, capsys)


def test_a_board_is_measured_and_cleaned(cli: Cli, on_board: OnBoard, host_artifact: Artifact):
    on_board.profile(f"PATH={Path(sys.executable).parent}:$PATH")  # a python3 with onnxruntime
    folder = host_artifact.folder
    args = ("--on", on_board.url, "--rounds", "1", "--cores", "0", "--peers", "--per-kernel")
    done = cli.run("bench", folder, *args, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["machine"], found["cores"]) == ("ssh://board", [0])
    assert [each["name"] for each in found["latencies"]] == [folder.name, "onnxruntime"]
    assert all(kernel["min_us"] > 0 for kernel in found["kernels"])

    assert on_board.cache.exists()
    done = cli.run("boards", on_board.url, "--clean")
    assert (done.returncode, done.stdout) == (0, "ssh://board: nothing of ours is left there\n")
    assert not on_board.cache.exists()


def test_the_table_says_how_the_board_was_doing(
    cli: Cli, on_board: OnBoard, host_artifact: Artifact
):
    done = cli.run("bench", host_artifact.folder, "--on", on_board.url, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "on ssh://board (" in done.stdout
    assert "of its cores" in done.stdout
    assert "before: " in done.stdout


def test_a_board_that_does_not_answer_is_a_line(cli: Cli, on_board: OnBoard):
    urls = (on_board.url, "ssh://nowhere.invalid")
    done = cli.run("boards", *urls)
    assert done.returncode == 1
    for words in ("ssh://board\n", "fits ", "--target ", "ssh://nowhere.invalid: `"):
        assert words in done.stdout
    here, lost = json.loads(cli.run("boards", *urls, "--json").stdout)["boards"]
    assert here["target"]
    assert here["cores"][0]["numbers"][0] == 0
    assert lost["hint"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--threads", "1,2"), "threads: on this machine it is one number"),
        (("--cores", "1"), "cores: on this machine it is one number"),
        (("--threads", "0"), "there may be 1 to 16"),
        (("--threads", "two"), "`two` is no list such as 1,2,4"),
    ],
)
def test_wrong_numbers(cli: Cli, args: tuple[str, ...], message: str):
    done = cli.run("bench", "folder", *args)
    assert done.returncode == 2
    assert message in done.stderr
