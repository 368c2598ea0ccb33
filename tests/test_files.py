"""Files that appear whole or not at all, and what becomes of those that did not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from levit_deploy import files
from levit_deploy.errors import DeployError
from levit_deploy.files import check_writable, is_partial, new_folder, sweep, write_files

WRITER = """
import os, signal, sys
from pathlib import Path
from levit_deploy import files

step, fatal, seen = sys.argv[1], int(sys.argv[2]), 0

def stop(event, args):
    global seen
    if event == step:
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

def synced(path, before=files._sync):
    sys.audit("test.sync", path)
    before(path)

files._sync = synced
sys.addaudithook(stop)
files.write_files({Path("one"): b"new", Path("two"): b"new"})
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    write_files({tmp_path / "a": b"new", tmp_path / "b": b""})
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "b").read_bytes() == b""
    assert names(tmp_path) == ["a", "b"]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    write_files({tmp_path / "a": b""})
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("step", ["open", "test.sync", "os.rename"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_killed_writer(step: str, number: int, tmp_path: Path) -> None:
    """At any of its steps: each file is the old or the new one, and the next write tidies up."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("old")
    command = [sys.executable, "-c", WRITER, step, str(number)]
    root = str(Path(__file__).parent.parent)
    code = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, check=False
    ).returncode
    assert code == (
        0 if (step, number) in {("os.rename", 3), ("os.rename", 4)} else -signal.SIGKILL
    )
    assert {(tmp_path / name).read_text() for name in ("one", "two")} <= {"old", "new"}
    assert all(is_partial(name) for name in set(names(tmp_path)) - {"one", "two"})
    write_files({tmp_path / "one": b"1", tmp_path / "two": b"2"})
    assert names(tmp_path) == ["one", "two"]


def test_content_is_on_the_disk_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename = Path.replace

    def replace(self: Path, other: Path) -> Path:
        seen.append(f"rename {other.name}")
        return rename(self, other)

    monkeypatch.setattr(
        files, "_sync", lambda path: seen.append("folder" if path.is_dir() else "file")
    )
    monkeypatch.setattr(Path, "replace", replace)
    write_files({tmp_path / "a": b"x"})
    assert seen == ["file", "rename a", "folder"]


def test_one_that_cannot_be_written_leaves_all_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(DeployError, match=r"cannot write `.*b`: it exists and is not a file") as e:
        write_files({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert e.value.hint == "choose another file: -o FILE"
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/null", "is not a file"),
        ("/nowhere/x", "is not a folder"),
        ("/proc/x", "cannot write `/proc/x`"),
    ],
)
def test_places_that_are_refused(path: str, message: str) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        write_files({Path(path): b"x"}, hint="elsewhere")
    assert caught.value.hint == "elsewhere"
    assert Path("/dev/null").is_char_device()


def test_a_full_disk(tmp_path: Path) -> None:
    source = (
        "import resource, sys; from pathlib import Path\n"
        "from levit_deploy.files import write_files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: write_files({Path(sys.argv[1]): bytes(1000)}, hint='write elsewhere')\n"
        "except Exception as error: print(error.message, error.hint, sep='|')\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "a")],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    message, hint = done.stdout.strip().split("|")
    assert message == f"cannot write `{tmp_path / 'a'}`: File too large"
    assert hint == "free some space, or write elsewhere"
    assert names(tmp_path) == []


def test_check_writable_finds_what_is_bound_to_fail(tmp_path: Path) -> None:
    check_writable(tmp_path / "a")
    for path in (tmp_path / "no" / "a", tmp_path, Path("/dev/null")):
        with pytest.raises(DeployError, match="cannot write"):
            check_writable(path)


def test_sweeping_leaves_what_is_at_work_and_what_is_not_ours(tmp_path: Path) -> None:
    abandoned = [".a.partial-01234567", ".b.partial-89abcdef"]
    others = ["a", ".a.partial", ".a.partial-0123456", "a.partial-01234567"]
    for name in (*abandoned, *others):
        (tmp_path / name).touch()
    (tmp_path / ".c.partial-00000000").mkdir()
    (tmp_path / ".c.partial-00000000" / "x").touch()
    with new_folder(tmp_path / "d", lambda path: None, hint="h") as at_work:
        sweep(tmp_path, "b")
        assert names(tmp_path) == sorted(
            [abandoned[0], *others, ".c.partial-00000000", at_work.name]
        )
        sweep(tmp_path)
        assert names(tmp_path) == sorted([*others, at_work.name])
        assert is_partial(at_work.name)


def test_what_was_to_stay_stays(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        if path.exists():
            raise DeployError("it stays")

    with pytest.raises(DeployError, match="it stays"), new_folder(tmp_path / "d", refuse, hint="h"):
        (tmp_path / "d").mkdir()  # by another process, in between
    assert names(tmp_path) == ["d"]
