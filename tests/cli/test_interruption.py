"""Ctrl-C, SIGTERM, a full disk, two compiles at once: whole folders or none."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from levit_deploy.runtime.artifact import Artifact
from tests.cli.conftest import TINY_WEIGHTS, Cli, Spawner, compile_args


def wait_for_staging(process: subprocess.Popen[str], parent: Path) -> None:
    """Until the process is writing its folder."""
    while process.poll() is None and not (parent.exists() and list(parent.iterdir())):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.parametrize(
    ("sent", "code", "word", "late"),
    [
        (signal.SIGINT, 130, "interrupted", False),
        (signal.SIGTERM, 143, "terminated", True),
        pytest.param(signal.SIGINT, 130, "interrupted", True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "terminated", False, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_compile_leaves_nothing(
    spawner: Spawner, sent: signal.Signals, code: int, word: str, late: bool
):
    parent = spawner.folder / "build"
    with spawner.start(*compile_args("-o", parent)) as process:
        assert process.stderr is not None
        if late:
            wait_for_staging(process, parent)
        else:
            process.stderr.readline()  # settings: the work begins
        process.send_signal(sent)
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == code, stderr
    assert stderr.splitlines()[-1] == f"error: {word}"
    assert "Traceback" not in stderr
    assert not parent.exists() or list(parent.iterdir()) == []


@pytest.mark.slow
def test_two_compiles_into_one_folder(spawner: Spawner):
    parent = spawner.folder / "build"
    args = compile_args("-o", parent)
    with spawner.start(*args) as first, spawner.start(*args) as second:
        codes = [process.wait(timeout=300) for process in (first, second)]
        assert codes == [0, 0]
    (folder,) = parent.iterdir()
    Artifact.load(folder)  # whole, and every file that of one and the same build


def test_a_full_temporary_folder(
    spawner: Spawner, small_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    """It has room for a file, as Python tests, but neither for the object nor for images."""
    (small_disk / "others").write_bytes(bytes(220_000))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    done = spawner.run(*compile_args("-o", "build"))
    assert done.returncode == 1, done.stderr
    assert "LLVM" not in done.stderr
    assert done.stderr.splitlines()[-3].startswith("error: ")
    assert "TMPDIR" in done.stderr.splitlines()[-1]
    assert list(spawner.folder.glob("build/*")) == []
    assert list(small_disk.glob("levit-deploy-*")) == []


@pytest.mark.parametrize("kind", ["compile", "export"])
def test_a_full_disk(cli: Cli, small_disk: Path, kind: str):
    if kind == "compile":
        done = cli.compile("-o", small_disk)
    else:
        args = ("levit_tiny", "--weights", TINY_WEIGHTS, "-o", small_disk / "tiny.onnx")
        done = cli.run("export", *args)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    assert "hint: free some space" in done.stderr
    assert list(small_disk.iterdir()) == []


STARTED = (  # before its first line it is Python that starts, and answers as Python does
    "import sys\n"
    "from levit_deploy.start import main\n"
    "started = sys.stdout.write('started\\n'); sys.stdout.flush()\n"
    "main()\n"
)


def check_early_interrupt(spawner: Spawner, delay_s: float) -> None:
    """Whatever is being imported then: one line, and nothing left behind."""
    args = ("compile", "--target", "host", "levit_128s", "--weights", "demo", "-o", "build")
    with spawner.start(*args, code=STARTED) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, (delay_s, stderr)
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    assert not list(spawner.folder.glob("build/*"))


@pytest.mark.parametrize("delay_s", [0.03, 0.3, 1.0])
def test_an_early_interrupt(spawner: Spawner, delay_s: float):
    check_early_interrupt(spawner, delay_s)


@pytest.mark.slow
def test_an_interrupt_at_any_moment_of_the_first_seconds(spawner: Spawner):
    for step in range(120):
        check_early_interrupt(spawner, 0.02 + 0.02 * step)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_stream(spawner: Spawner, stream: int):
    code = f"import os; os.close({stream})\nfrom levit_deploy.start import main\nmain()"
    with spawner.start("targets", code=code) as process:
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
