"""Killed at any write, rename or sync: what was there is whole, and the next run works.

The gate kills at a few of the steps. The slow tests look at all: before each, a copy is kept of
what lies in the folder, which is what a kill would leave there, and each copy is gone on with.
"""

import hashlib
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.verify.report import Verification
from tests.cli.conftest import TINY_WEIGHTS, WITH_TINY, Cli, Done, Spawner, compile_args
from tests.models.file_server import serve

# Ends this process at its FATAL-th step in the folder HERE, or copies HERE into the folder STATES
# before each; says on stderr how many it made.
CRASH = """
import atexit, os, shutil, signal, sys
fatal, here, made = int(sys.argv.pop(1)), os.path.realpath(os.getcwd()), 0
states = os.environ.get("STATES")

def step(path):
    global made
    if os.path.realpath(os.fsdecode(path)).startswith(here):
        made += 1
        if made == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if states:
            shutil.copytree(here, f"{states}/{made:04}")

def watch(event, args):
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        step(args[0])
    elif event == "open" and isinstance(args[0], (str, bytes)) and isinstance(args[2], int):
        if args[2] & (os.O_WRONLY | os.O_RDWR):
            step(args[0])

from levit_deploy import files

def before(name):
    actual = getattr(files, name)
    def counted(path, *args):
        step(path)
        return actual(path, *args)
    setattr(files, name, counted)

before("_sync")
before("_renameat2")
sys.addaudithook(watch)
atexit.register(lambda: print(f"steps {made}", file=sys.stderr))
"""
DOWNLOAD = """
from pathlib import Path
from levit_deploy.models.download import download
download(sys.argv[1], Path("cache/weights"), sha256=sys.argv[2] or None)
"""


def crash_at(spawner: Spawner, step: int, args: Sequence[str | Path], code: str) -> int:
    """0 if it was killed there, else how many steps it made to its end."""
    done = spawner.run(str(step), *args, code=CRASH + code)
    if done.returncode == -signal.SIGKILL:
        return 0
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def states(
    spawner: Spawner,
    folder: Path,
    args: Sequence[str | Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """A command runs to its end; the spawner's folder is what it was before each of the steps."""
    monkeypatch.setenv("STATES", str(folder))
    assert crash_at(spawner, 0, args, WITH_TINY) > 20
    monkeypatch.delenv("STATES")
    seen = set()
    for state in sorted(folder.iterdir()):
        if (content := content_of(state)) not in seen:
            seen.add(content)
            for path in spawner.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(state, spawner.folder, dirs_exist_ok=True)
            yield state


def content_of(folder: Path) -> frozenset[tuple[Path, bytes | None]]:
    """Of each file what it holds; folders too."""
    return frozenset(
        (path.relative_to(folder), path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    )


SLOW = pytest.mark.slow


def put(fp32: Path, parent: Path) -> Path:
    parent.mkdir(exist_ok=True)
    return fp32.rename(parent / fp32.name)


def check_artifact(folder: Path) -> None:
    """Whole, and the only thing beside which nothing is left."""
    Artifact.load(folder)
    assert Verification.load(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


COMPILE = compile_args("-o", "build")


def test_compile(spawner: Spawner, fp32: Path):
    """An older artifact is there: it stays, or the new one is in its place."""
    folder = put(fp32, spawner.folder / "build")
    assert crash_at(spawner, 40, COMPILE, WITH_TINY) == 0
    Artifact.load(folder)
    assert Verification.load(folder)
    done = spawner.run(*COMPILE)
    assert done.returncode == 0, done.stderr
    check_artifact(folder)


@SLOW
def test_compile_at_every_step(
    cli: Cli,
    spawner: Spawner,
    fp32: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    folder = put(fp32, spawner.folder / "build")
    left, count = set(), 0
    for state in states(spawner, tmp_path_factory.mktemp("states"), COMPILE, monkeypatch):
        Artifact.load(folder)
        assert Verification.load(folder)
        names = frozenset(path.name for path in folder.parent.iterdir())
        if names not in left or count % 25 == 0:  # 200 compiles would show the same
            left.add(names)
            assert cli.run(*COMPILE).returncode == 0, state
            check_artifact(folder)
        count += 1
    assert len(left) > 1
    assert count > 100


AUDIT_DATA = ("--weights", TINY_WEIGHTS, "--data", "demo", "--images", "4", "--jobs", "1")
AUDIT = ("audit", "levit_tiny-host-fp32", *AUDIT_DATA, "-o", "report")


def check_audited(done: Done, folder: Path, names: set[str], where: object) -> None:
    assert done.returncode == 0, (where, done.stderr)
    report = {path.name for path in (folder / "report").iterdir()}
    assert report == {".audit", "audit.html", "audit.json"}, where
    artifact = folder / AUDIT[1]
    assert {path.name for path in artifact.iterdir()} == names, where


def test_audit(spawner: Spawner, fp32: Path):
    artifact = put(fp32, spawner.folder)
    names = {path.name for path in artifact.iterdir()}
    assert crash_at(spawner, 22, (*AUDIT, "--force"), WITH_TINY) == 0
    Manifest.load(artifact)
    assert Verification.load(artifact)
    check_audited(spawner.run(*AUDIT, "--resume"), spawner.folder, names, "")


@SLOW
@pytest.mark.parametrize("again", ["--resume", "--force"])
def test_audit_at_every_step(
    cli: Cli,
    spawner: Spawner,
    fp32: Path,
    again: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    """The second of two audits, so that an older report is there."""
    artifact = put(fp32, spawner.folder)
    names = {path.name for path in artifact.iterdir()}
    assert cli.run(*AUDIT).returncode == 0
    place, command = tmp_path_factory.mktemp("states"), (*AUDIT, "--force")
    for state in states(spawner, place, command, monkeypatch):
        Manifest.load(artifact)
        assert Verification.load(artifact)
        check_audited(cli.run(*AUDIT, again), spawner.folder, names, state)


@SLOW
def test_tune(
    cli: Cli,
    spawner: Spawner,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    args = ("tune", "--target", "arm64", "levit_tiny", "--candidates", "2", "-o", "tiles.json")
    place = tmp_path_factory.mktemp("states")
    for count, state in enumerate(states(spawner, place, args, monkeypatch)):
        if count % 10:
            continue  # the rows come one by one, in the same way
        done = cli.run(*args)
        assert done.returncode == 0, (state, done.stderr)
        assert [path.name for path in spawner.folder.iterdir()] == ["tiles.json"]


def killed_at_each_step(spawner: Spawner, args: Sequence[str | Path], code: str) -> Iterator[int]:
    """The numbers of the steps at which it was killed: all of them."""
    step = 1
    while crash_at(spawner, step, args, code) == 0:
        yield step
        step += 1


@pytest.mark.parametrize("known", [True, False])
def test_download(spawner: Spawner, monkeypatch: pytest.MonkeyPatch, known: bool):
    """At every step. Another version is there: it stays, or the new one is in its place."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    old, new = b"old" * 1000, b"new" * 1000
    cache = spawner.folder / "cache"
    with serve(old) as server:
        for content, tag in ((old, "one"), (new, "two")):
            server.content, server.headers = content, {"ETag": tag}
            digest = hashlib.sha256(content).hexdigest() if known else ""
            for step in killed_at_each_step(spawner, (server.url, digest), DOWNLOAD):
                if content is new:
                    assert (cache / "weights").read_bytes() in (old, new), step
                again = crash_at(spawner, 0, (server.url, digest), DOWNLOAD)
                assert again is not None
                assert (cache / "weights").read_bytes() == content, step
                names = {path.name for path in cache.iterdir()}
                assert names - {"weights.version"} == {"weights", "weights.lock"}, step
                (cache / "weights").write_bytes(old)
                (cache / "weights.version").unlink(missing_ok=True)
                if content is old:
                    (cache / "weights").unlink()
