"""A board over ssh, on the loopback: programs run there, and nothing of them is left."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.machines.board import Board
from levit_deploy.machines.machine import (
    Machine,
    MachineLostError,
    NotExecutedError,
    RunError,
)
from levit_deploy.machines.open import open_machine
from levit_deploy.targets.host import read_cpu
from tests.boards.sshd import OnBoard, Sshd

SLEEP = "exec sleep 987"


@pytest.fixture
def machine(on_board: OnBoard) -> Machine:
    return open_machine(on_board.url)


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    return path


def sleeping() -> bool:
    command = ("pgrep", "-f", "^sleep 987")
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def kill(processes: list[int]) -> None:
    for pid in processes:
        os.kill(pid, signal.SIGKILL)


def soon(condition, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_board_says_what_it_is(machine: Machine):
    assert machine.cpu() == read_cpu()
    assert machine.shell("echo $((6 * 7))") == "42\n"
    machine.close()


def test_a_program_with_its_files(machine: Machine, on_board: OnBoard, tmp_path: Path):
    odd = "$HOME `id` 'a' \\ \"b\"\n!"
    content = os.urandom(100_000)
    (tmp_path / "in").write_bytes(content)
    program = script(tmp_path, "program", 'cat in >out; printf "%s" "$1"; printf "%s" "$ODD"')
    with machine.workplace() as place:
        place.put(program, "program", executable=True)
        place.put(tmp_path / "in", "in")
        assert place.run(["program", odd], env={"ODD": odd}) == 2 * odd
        assert place.get("out") == content
        with pytest.raises(RunError, match="wrote no `missing`"):
            place.get("missing")
    machine.close()
    assert on_board.is_clean()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("echo it went wrong >&2; exit 3", RunError, "it went wrong"),
        ("exit 3", RunError, "exit code 3"),
        ("kill -SEGV $$", RunError, "crashed with SIGSEGV"),
        ("exit 126", NotExecutedError, "126"),
        ("exit 125", DeployError, "not the one of its manifest"),
    ],
)
def test_what_a_program_does_wrong(machine: Machine, tmp_path: Path, text, kind, words):
    with machine.workplace() as place:
        place.put(script(tmp_path, "program", text), "program", executable=True)
        with pytest.raises(kind, match=words) as caught:
            place.run(["program"])
    assert type(caught.value) is kind
    machine.close()


def test_a_program_that_keeps_running(machine: Machine, tmp_path: Path):
    with machine.workplace() as place, (tmp_path / "stderr").open("w") as stderr:
        place.put(script(tmp_path, "echo", "exec cat"), "echo", executable=True)
        with place.start(["echo"], stderr) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"\0 bytes\n")
            process.stdin.flush()
            assert process.stdout.read(8) == b"\0 bytes\n"
            process.stdin.close()
    machine.close()


def test_a_hang_is_ended_there(machine: Machine, tmp_path: Path):
    with machine.workplace() as place:
        place.put(script(tmp_path, "program", SLEEP), "program", executable=True)
        with pytest.raises(RunError, match="did not finish within 1 s"):
            place.run(["program"], timeout_s=1)
        assert soon(lambda: not sleeping())
    machine.close()


def test_a_program_is_sent_once(machine: Machine, on_board: OnBoard, tmp_path: Path):
    """The next time it is there, under its digest; and what somebody changed is sent again."""
    program = script(tmp_path, "program", "echo right")
    written = []
    for _ in range(3):
        with machine.workplace() as place:
            place.put(program, "program", executable=True)
            assert place.run(["program"]) == "right\n"
        (cached,) = on_board.cache.glob("?/*")
        written.append(cached.stat().st_mtime_ns)
        if len(written) == 2:
            cached.write_text("#!/bin/sh\necho wrong\n")
    assert written[0] == written[1] < written[2]
    assert isinstance(machine, Board)
    machine.clean()
    assert not on_board.cache.exists()


def test_a_lost_connection_is_made_again(
    machine: Machine, on_board: OnBoard, sshd: Sshd, tmp_path: Path
):
    """Between two commands, and in the middle of one: the files are sent again."""
    program = script(
        tmp_path, "program", f"[ -e {tmp_path}/once ] && exec cat in; : >{tmp_path}/once; {SLEEP}"
    )
    (tmp_path / "in").write_text("content")
    with machine.workplace() as place:
        place.put(program, "program", executable=True)
        kill(sshd.connections())
        place.put(tmp_path / "in", "in")
        killer = threading.Thread(target=lambda: soon(sleeping) and kill(sshd.connections()))
        killer.start()
        assert place.run(["program"]) == "content"
        killer.join()
        assert soon(lambda: not sleeping())
    machine.close()
    assert on_board.is_clean()


def test_a_board_that_is_gone(machine: Machine, sshd: Sshd, tmp_path: Path):
    with machine.workplace() as place:
        place.put(script(tmp_path, "program", SLEEP), "program", executable=True)
        connections = sshd.connections()
        sshd.stop()
        try:
            kill(connections)
            with pytest.raises(MachineLostError, match=r"`ssh://board` is lost: .*has no ssh"):
                place.run(["program"])
        finally:
            sshd.start()
    machine.close()


def test_two_commands_on_one_board(machine: Machine, on_board: OnBoard):
    with machine.workplace(), pytest.raises(DeployError, match=r"is in use by \w+@") as caught:
        open_machine(on_board.url).shell("true")
    assert "wait" in (caught.value.hint or "")
    machine.close()
    assert machine.shell("echo free") == "free\n"
    machine.close()


def test_a_lock_that_was_left_behind(machine: Machine, on_board: OnBoard):
    """As by a board that lost its power."""
    (on_board.cache / "lock").mkdir(parents=True)
    (on_board.cache / "lock" / "who").write_text("another-boot 1 token somebody@elsewhere\n")
    machine.shell("true")
    assert machine.notes == [
        "ssh://board: the lock of somebody@elsewhere was left behind, and is taken over"
    ]
    machine.close()


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ssh://",
            "ssh://-oProxyCommand=id",
            "ssh://a b",
            "ssh://a;id",
            "ssh://$(id)",
            "ssh://a'b",
        ),
        *("ssh://-l@host", "ssh://u@-host", "ssh://host:", "ssh://host:0", "ssh://host:65536"),
        *("ssh://host:22x", "ssh://user:password@host", "ssh://a\nb", "ssh://[::1", "host", ""),
        *("ssh://u@h@x", "ssh://ho`id`st", "ssh://host/path", "http://host"),
    ],
)
def test_a_name_is_never_an_option_or_a_command(url: str):
    with pytest.raises(DeployError, match="is no URL of a board") as caught:
        open_machine(url)
    assert (caught.value.hint or "").startswith("--on ssh://USER@HOST:PORT")


def test_a_key_that_is_refused(on_board: OnBoard, sshd: Sshd):
    keys = sshd.keys.read_text()
    sshd.keys.write_text("")
    try:
        with pytest.raises(DeployError, match="`ssh://board` refuses your key") as caught:
            open_machine(on_board.url).cpu()
    finally:
        sshd.keys.write_text(keys)
    assert caught.value.hint == "ssh-copy-id board; for a key with a passphrase: ssh-add"


def test_a_host_key_that_nobody_accepted(on_board: OnBoard, sshd: Sshd):
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    try:
        with pytest.raises(DeployError, match="host key that you have not accepted") as caught:
            open_machine("ssh://me@board").cpu()
        assert sshd.known_hosts.read_text() == ""
    finally:
        sshd.known_hosts.write_text(known)
    assert caught.value.hint == "compare its fingerprint, once by hand: ssh me@board"


def test_a_host_key_that_has_changed(on_board: OnBoard, sshd: Sshd):
    sshd.make_key("other_key")
    sshd.know(sshd.folder / "other_key.pub")
    try:
        with pytest.raises(DeployError, match="has another host key than it had") as caught:
            open_machine(on_board.url).cpu()
    finally:
        sshd.know(sshd.folder / "host_key.pub")
    assert "ssh-keygen -R board" in (caught.value.hint or "")


def test_a_host_that_does_not_exist(on_board: OnBoard):
    with pytest.raises(DeployError, match="is not known by that name"):
        open_machine("ssh://nowhere.invalid").cpu()


def test_a_board_without_what_is_needed(on_board: OnBoard, tmp_path: Path):
    (tmp_path / "tools").mkdir()
    for tool in ("sh", "cat", "chmod", "mkdir", "uname"):
        (tmp_path / "tools" / tool).symlink_to(f"/bin/{tool}")
    on_board.profile(f"PATH={tmp_path}/tools")
    with pytest.raises(DeployError, match="`ssh://board` has no mv, rm") as caught:
        open_machine(on_board.url).cpu()
    assert "sh, cat, chmod, mkdir, mv, rm, uname" in (caught.value.hint or "")


def test_a_board_without_a_shell(on_board: OnBoard):
    on_board.profile("PATH=/nowhere")
    with pytest.raises(DeployError, match="`ssh://board` has no POSIX shell") as caught:
        open_machine(on_board.url).cpu()
    assert "a board needs these: sh, cat" in (caught.value.hint or "")


def test_a_shell_that_says_something_first(on_board: OnBoard, tmp_path: Path):
    on_board.profile("echo note Welcome; echo ready >&2")
    machine = open_machine(on_board.url)
    assert machine.shell("echo right") == "right\n"
    with machine.workplace() as place, (tmp_path / "stderr").open("w") as stderr:
        place.put(script(tmp_path, "program", "cat"), "program", executable=True)
        with place.start(["program"], stderr) as process:
            assert process.communicate(b"right")[0] == b"right"
    assert list(machine.notes) == []
    machine.close()


@pytest.mark.parametrize("missing", ["sha256sum", "wc"])
def test_a_board_without_a_checksum(on_board: OnBoard, tmp_path: Path, missing: str):
    (tmp_path / "tools").mkdir()
    tools = ("sh", "cat", "chmod", "mkdir", "mv", "rm", "uname", "wc", "sha256sum")
    for tool in tools[: tools.index("wc") + (missing == "sha256sum")]:
        (tmp_path / "tools" / tool).symlink_to(f"/usr/bin/{tool}")
    on_board.profile(f"PATH={tmp_path}/tools")
    machine = open_machine(on_board.url)
    with machine.workplace() as place:
        place.put(script(tmp_path, "program", "echo it runs"), "program", executable=True)
        assert place.run(["program"]) == "it runs\n"
    machine.close()


def test_no_space(on_board: OnBoard, tmp_path: Path):
    """Files of at most 8 kB, as a full disk would have it."""
    on_board.profile("trap '' XFSZ; ulimit -f 16")
    (tmp_path / "in").write_bytes(bytes(100_000))
    machine = open_machine(on_board.url)
    with machine.workplace() as place:
        for executable in (False, True):
            with pytest.raises(DeployError, match="cannot write 100000 bytes to") as caught:
                place.put(tmp_path / "in", "in", executable=executable)
            assert "--clean" in (caught.value.hint or "")
    machine.close()
    assert [file for file in on_board.cache.rglob("*") if file.is_file()] == []


def test_a_folder_where_no_program_may_run(on_board: OnBoard, tmp_path: Path):
    on_board.profile(f"TMPDIR={tmp_path}/noexec")
    (tmp_path / "noexec").mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", f"{tmp_path}/noexec")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        machine = open_machine(on_board.url)
        with machine.workplace() as place:
            place.put(script(tmp_path, "program", "pwd"), "program", executable=True)
            assert not place.run(["program"]).startswith(f"{tmp_path}/noexec")
        assert machine.notes == [f"ssh://board: {tmp_path}/noexec does not let programs run"]
        machine.close()
    finally:
        subprocess.run(("umount", "-l", f"{tmp_path}/noexec"), check=True)
