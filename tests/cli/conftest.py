"""Running the command line: in this process, or in one of its own as a user does."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from levit_deploy.cli import main
from levit_deploy.models.spec import FAMILY, TINY
from tests.conftest import Once

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 300  # of a process, on a machine that others use
TINY_WEIGHTS = ROOT / "tests" / "data" / "levit_tiny_cifar10.safetensors"
# The tiny LeViT compiles in seconds; for these tests it is a member of the family.
WITH_TINY = (
    "from levit_deploy.models.spec import FAMILY, TINY\n"
    "FAMILY[TINY.name] = TINY\n"
    "from levit_deploy.cli import main\n"
    "main()\n"
)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def compile_args(*args: str | Path, target: str = "host") -> tuple[str | Path, ...]:
    """What compiles the tiny LeViT."""
    weights = () if "--weights" in args else ("--weights", TINY_WEIGHTS)
    return ("compile", "--target", target, "levit_tiny", *weights, *args)


class Cli:
    """`folder` is empty, and where the commands run."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture

    def run(self, *args: str | Path) -> Done:
        """One command in this process: what it imports is imported once for all tests."""
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        output = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, output.out, output.err)

    def compile(self, *args: str | Path, target: str = "host") -> Done:
        return self.run(*compile_args(*args, target=target))


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FAMILY, TINY.name, TINY)
    handler = signal.getsignal(signal.SIGTERM)
    yield Cli(tmp_path, capsys)
    signal.signal(signal.SIGTERM, handler)


class Spawner:
    """The command line in processes of its own, for what a process does as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *args: str | Path, code: str = WITH_TINY) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str | Path, code: str = WITH_TINY) -> Done:
        with self.start(*args, code=code) as process:
            stdout, stderr = process.communicate(timeout=600)
        return Done(process.returncode, stdout, stderr)


def wait_for(what: Callable[[], object]) -> None:
    """Until it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def spawner(tmp_path: Path) -> Spawner:
    return Spawner(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 kB of tmpfs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def compiled(once: Once) -> tuple[Path, str]:
    """(folder of an artifact for this machine, what the compile printed on stdout)."""

    def make(folder: Path) -> None:
        done = Spawner(folder).run(*compile_args("-o", "build", "--json"))
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)

    folder = once("compiled", make)
    return folder / "build" / "levit_tiny-host-fp32", (folder / "stdout").read_text()


@pytest.fixture
def fp32(compiled: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fp32 artifact for this machine: an audit writes its verdict into it."""
    copy = tmp_path_factory.mktemp("fp32") / compiled[0].name
    shutil.copytree(compiled[0], copy)
    return copy
