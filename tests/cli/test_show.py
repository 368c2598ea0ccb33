"""models, targets, doctor, --help: quick, readable, and the same facts as JSON."""

import json
import shutil
from pathlib import Path

import pytest

from levit_deploy import __version__
from levit_deploy.cli import commands
from levit_deploy.models.spec import FAMILY, TINY
from levit_deploy.targets.table import TARGETS
from tests.cli.conftest import Cli, Spawner

HEAVY = {"torch", "tvm", "onnx", "onnxruntime", "numpy", "rich"}


def test_targets_lists_every_target_and_the_host(cli: Cli):
    done = cli.run("targets")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["TARGET", "CODE", "VECTOR", "FMA", "INT8", "L1D", "L2", "DESCRIPTION"]
    assert [row.split()[0] for row in rows] == [*TARGETS, "host"]


def test_targets_as_json(cli: Cli):
    listed = json.loads(cli.run("targets", "--json").stdout)
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name.keys() == {*TARGETS, "host"}
    assert by_name["rpi5"]["base"] == "arm64-dotprod"
    assert by_name["x86-64-v3"]["vector_bytes"] == 32


def test_models_lists_the_family(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(FAMILY, TINY.name)
    done = cli.run("models")
    assert done.returncode == 0
    assert [row.split()[0] for row in done.stdout.splitlines()[1:]] == list(FAMILY)
    as_json = json.loads(cli.run("models", "--json").stdout)
    assert [entry["name"] for entry in as_json] == list(FAMILY)


def test_doctor_says_what_is_there(cli: Cli):
    findings = json.loads(cli.run("doctor", "--json").stdout)
    by_name = {finding["what"]: finding for finding in findings}
    assert by_name["host CPU"]["ok"]
    assert all(finding["ok"] or finding["hint"] for finding in findings)


def test_doctor_says_what_to_type(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(cli.folder))
    assert "apt-get install qemu-user" in cli.run("doctor").stdout


def imported_by(spawner: Spawner, *args: str | Path) -> set[str]:
    """Looks at sys.modules at exit, as time would measure the machine."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from levit_deploy.cli import main\n"
        "main()\n"
    )
    done = spawner.run(*args, code=code)
    assert done.returncode == 0
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "click" in loaded
    return loaded


@pytest.mark.parametrize("args", [["--help"], ["targets"], ["models"], ["compile", "--help"]])
def test_what_must_be_quick_imports_nothing_heavy(spawner: Spawner, args: list[str]):
    assert imported_by(spawner, *args) & HEAVY == set()


def test_inspect_imports_no_framework(spawner: Spawner, compiled: tuple[Path, str]):
    assert imported_by(spawner, "inspect", compiled[0]) & HEAVY <= {"numpy"}


@pytest.mark.parametrize("name", [None, *commands.commands])
def test_every_help_has_an_example_that_parses(cli: Cli, name: str | None):
    words = [name] if name else []
    done = cli.run(*words, "--help")
    assert done.returncode == 0
    examples = [line.split() for line in done.stdout.splitlines() if "  levit-deploy " in line]
    assert examples
    for _, command, *args in examples:
        parsed = commands.commands[command].make_context(command, args)
        assert parsed.params is not None


def test_no_command_shows_the_help(cli: Cli):
    done = cli.run()
    assert done.returncode == 2
    assert "levit-deploy compile" in done.stderr


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["frobnicate"], "No such command 'frobnicate'", "levit-deploy --help"),
        (["targets", "--colour"], "No such option", "levit-deploy targets --help"),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, args, message, hint):
    done = cli.run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    error, blank, hinted = done.stderr.splitlines()
    assert error.startswith(f"error: {message}")
    assert blank == ""
    assert hinted == f"hint: {hint}"


def test_a_closed_pipe_is_no_traceback(spawner: Spawner):
    """As in `levit-deploy targets | head -1`, with the reader gone from the start."""
    with spawner.start("targets") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_version(cli: Cli):
    done = cli.run("--version")
    assert (done.returncode, done.stdout) == (0, f"levit-deploy {__version__}\n")


def test_the_list_of_commands_is_not_cut_off(spawner: Spawner):
    assert "..." not in spawner.run("--help").stdout.partition("Commands:")[2]


def test_a_locale_without_the_letters_of_a_name(
    spawner: Spawner, compiled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
):
    """Some names are not even text: bytes that UTF-8 has not."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    folder = spawner.folder / "100 \N{EURO SIGN}\udcff"
    shutil.copytree(compiled[0], folder)
    done = spawner.run("inspect", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].endswith("100 \\u20ac\\udcff/")
