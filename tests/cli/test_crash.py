"""Killed at any write, rename or sync: what was there is whole, and the next run works.

The gate kills at a few of the steps, the slow tests at all.
"""

import hashlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.verify.report import Verification
from tests.cli.conftest import TINY_WEIGHTS, WITH_TINY, Spawner, compile_args
from tests.models.file_server import serve

# Ends this process at its FATAL-th step in the folder HERE; says on stdout how many it made.
CRASH = """
import atexit, os, signal, sys
fatal, here, made = int(sys.argv.pop(1)), os.path.realpath(os.getcwd()), 0

def step(path):
    global made
    if os.path.realpath(os.fsdecode(path)).startswith(here):
        made += 1
        if made == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

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


def each_step(
    spawner: Spawner, args: Sequence[str | Path], code: str, steps: Sequence[int] | None
) -> Iterator[int]:
    """The numbers of the steps at which it was killed: some, or all."""
    step, made = 0, 0
    while not made if steps is None else step < len(steps):
        step += 1
        number = step if steps is None else steps[step - 1]
        made = crash_at(spawner, number, args, code)
        if not made:
            yield number


SLOW = pytest.mark.slow


@pytest.mark.parametrize("steps", [(40,), pytest.param(None, marks=SLOW)])
def test_compile(spawner: Spawner, fp32: Path, steps: Sequence[int] | None):
    """An older artifact is there: it stays, or the new one is in its place."""
    args = compile_args("-o", "build")
    folder = spawner.folder / "build" / fp32.name
    folder.parent.mkdir()
    fp32.rename(folder)
    for _ in each_step(spawner, args, WITH_TINY, steps):
        Artifact.load(folder)
        assert Verification.load(folder)
    done = spawner.run(*args)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("steps", "again"),
    [
        ((22,), "--resume"),
        pytest.param(None, "--resume", marks=SLOW),
        pytest.param(None, "--force", marks=SLOW),
    ],
)
def test_audit(spawner: Spawner, fp32: Path, steps: Sequence[int] | None, again: str):
    artifact = spawner.folder / fp32.name
    fp32.rename(artifact)
    names = {path.name for path in artifact.iterdir()}
    data = ("--weights", TINY_WEIGHTS, "--data", "demo", "--images", "4", "--jobs", "1")
    args = ("audit", artifact.name, *data, "-o", "report")
    for step in each_step(spawner, (*args, "--force"), WITH_TINY, steps):
        Manifest.load(artifact)
        assert Verification.load(artifact)
        done = spawner.run(*args, again)
        assert done.returncode == 0, (step, done.stderr)
        report = {path.name for path in (spawner.folder / "report").iterdir()}
        assert report == {".audit", "audit.html", "audit.json"}, step
        assert {path.name for path in artifact.iterdir()} == names, step


@SLOW
def test_tune(spawner: Spawner):
    args = ("tune", "--target", "arm64", "levit_tiny", "--candidates", "2", "-o", "tiles.json")
    for step in each_step(spawner, args, WITH_TINY, (1, 2, 3, 5, 8, 13, 21, 34, 55)):
        done = spawner.run(*args)
        assert done.returncode == 0, (step, done.stderr)
        assert [path.name for path in spawner.folder.iterdir()] == ["tiles.json"]
        (spawner.folder / "tiles.json").unlink()


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
            for step in each_step(spawner, (server.url, digest), DOWNLOAD, None):
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
