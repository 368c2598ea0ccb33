"""The whole main job on a whole arm64 computer, and what it does when that one's plug is pulled."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.tiles.table import load_tiles
from levit_deploy.machines.ssh import SshBoard
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.verify.artifact_runner import ArtifactRunner
from levit_deploy.verify.images import real_images
from tests.boards import virtual_board
from tests.boards.virtual_board import BOOT_S, MODELS, URL, VirtualBoard
from tests.cli.conftest import TINY_WEIGHTS, WITH_TINY, Cli, Spawner, compile_args, wait_for

pytestmark = [
    pytest.mark.board,
    pytest.mark.skipif(virtual_board.missing() is not None, reason=f"{virtual_board.missing()}"),
]
CPUS = {"cortex-a72": ("Cortex-A72", "rpi4"), "cortex-a76": ("Cortex-A76", "rpi5")}
# An emulator on a machine that others use is never calm, and slow at what is to empty a cache; of a
# model the first two kernels are tuned.
IN_AN_EMULATOR = (
    "from levit_deploy.compiler.tuning import batch\n"
    "from levit_deploy.tune import model\n"
    "batch.CALM, batch.COLD_BYTES = 1e9, 1 << 16\n"
    "every = model.distinct_specs\n"
    "model.distinct_specs = lambda *given: every(*given)[:2]\n"
)
IMAGES = 32


@pytest.fixture(scope="module", params=CPUS)
def booted(request: pytest.FixtureRequest) -> Iterator[VirtualBoard]:
    with virtual_board.booted(request.param) as board:
        yield board


@pytest.fixture
def board(booted: VirtualBoard, monkeypatch: pytest.MonkeyPatch) -> VirtualBoard:
    monkeypatch.setenv("PATH", f"{booted.bin}:{os.environ['PATH']}")
    return booted


@pytest.fixture(scope="module")
def host_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for this machine."""
    spawner = Spawner(tmp_path_factory.mktemp("host"))
    done = spawner.run(*compile_args("--precision", "int8", "--data", "demo"))
    assert done.returncode == 0, done.stderr
    return spawner.folder / "levit_tiny-host-int8"


@pytest.fixture(scope="module")
def made(booted: VirtualBoard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compile --target auto` makes for the board, in 8 bits."""
    spawner = Spawner(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{booted.bin}:{os.environ['PATH']}")
        precision = ("--precision", "int8", "--data", "demo")
        done = spawner.run(*compile_args("--on", URL, *precision, target="auto"))
    assert done.returncode == 0, done.stderr
    (folder,) = spawner.folder.iterdir()
    return folder


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    """A copy, as an audit writes into it."""
    return shutil.copytree(made, tmp_path / made.name)


def test_it_boots(board: VirtualBoard):
    assert board.boot_s < BOOT_S
    assert "aarch64" in board.shell("uname -m")


def test_what_it_is(cli: Cli, board: VirtualBoard):
    done = cli.run("boards", URL, "--json")
    assert done.returncode == 0, done.stderr
    name, target = CPUS[board.cpu]
    assert name in done.stdout
    assert MODELS[board.cpu].decode() in done.stdout
    assert f'"{target}"' in done.stdout


def test_equal_bits(made: Path, host_int8: Path, board: VirtualBoard):
    """Of 8 bits on the board and on this machine, whose CPU is another."""
    there, here = Artifact.load(made), Library(host_int8)
    assert there.manifest.target == CPUS[board.cpu][1]
    images = real_images(TINY, IMAGES, there.manifest.card.preprocessing)
    with closing(SshBoard(URL)) as ssh, ArtifactRunner(there, [ssh]) as runner:
        logits = runner.infer(images)
    expected = np.stack([here.run(image) for image in images.floats])
    assert logits.tobytes() == expected.tobytes()


def test_verify_and_bench(cli: Cli, artifact: Path, board: VirtualBoard):
    done = cli.run("verify", artifact, "--weights", TINY_WEIGHTS, "--on", URL)
    assert done.returncode == 0, done.stderr
    assert f"passed: run_frame in a C program on {URL}" in done.stdout
    options = ("--threads", "1,2", "--rounds", "3", "--per-kernel", "--json")
    done = cli.run("bench", artifact, "--on", URL, *options)
    assert done.returncode == 0, done.stderr
    assert CPUS[board.cpu][0] in done.stdout


def test_an_audit_has_the_figures_of_this_machine(
    cli: Cli, artifact: Path, host_int8: Path, board: VirtualBoard
):
    results = []
    for folder, on in ((artifact, ("--on", URL)), (host_int8, ())):
        args = ("--weights", TINY_WEIGHTS, "--data", "demo", "--images", str(IMAGES))
        options = ("--max-drop", "100", "-o", f"report of {folder.name}", "--json")
        done = cli.run("audit", folder, *args, *options, *on)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    there, here = results
    with closing(SshBoard(URL)) as ssh:
        assert there["audited"]["machine"] == f"{ssh.cpu().model}, {URL}"
    assert there["audited"]["taps_equal"] is True
    for figures in ("accuracies", "fidelities", "flips", "tensors"):
        assert there[figures] == here[figures]


def test_tuning(spawner: Spawner, board: VirtualBoard):
    """Two tiles of two kernels."""
    args = (*tune_args(board), "-o", "tiles.json", "--json")
    done = spawner.run(*args, code=IN_AN_EMULATOR + WITH_TINY)
    assert done.returncode == 0, done.stderr
    rows = load_tiles(spawner.folder / "tiles.json").rows.values()
    assert len(rows) == 2
    for row in rows:
        assert row.microseconds is not None
        assert f"; {URL}, Linux " in row.measured_on


def tune_args(board: VirtualBoard) -> tuple[str, ...]:
    target = CPUS[board.cpu][1]
    return ("tune", "--target", target, "levit_tiny", "--candidates", "2", "--on", URL)


def test_the_plug_is_pulled(spawner: Spawner, artifact: Path, board: VirtualBoard):
    """In the middle of each command: one error, no half of anything; then it is on again, and the
    same command does it."""
    weights = ("--weights", TINY_WEIGHTS)
    report, tiles = spawner.folder / "report", spawner.folder / "tiles.json"
    audit = ("audit", artifact, *weights, "--data", "demo", "--on", URL, "-o", report)
    commands: list[tuple[tuple[str | Path, ...], Callable[[], object]]] = [
        (compile_args("--on", URL, "-o", "built", target="auto"), lambda: runs(board)),
        (("verify", artifact, *weights, "--images", "64", "--on", URL), lambda: runs(board)),
        (("bench", artifact, "--on", URL, "--rounds", "200"), lambda: runs(board)),
        (
            (*audit, "--max-drop", "100", "--images", "192"),
            lambda: list(report.glob(".audit/chunk-*")),
        ),
        (
            (*tune_args(board), "-o", tiles),
            lambda: tiles.exists() and len(load_tiles(tiles).rows) == 1,
        ),
    ]
    for command, begun in commands:
        with spawner.start(*command, code=IN_AN_EMULATOR + WITH_TINY) as process:
            wait_for(lambda begun=begun, process=process: begun() or process.poll() is not None)
            board.stop()
            _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr
        (error,) = (line for line in stderr.splitlines() if line.startswith("error: "))
        assert f"`{URL}` is lost" in error
        assert "Traceback" not in stderr
        assert not (spawner.folder / "built").exists() or not list(
            (spawner.folder / "built").iterdir()
        )
        board.start()
        resume = ("--resume",) if command[0] == "audit" else ()
        if command[0] == "bench":
            resume = ("--rounds", "3")
        done = spawner.run(*command, *resume, code=IN_AN_EMULATOR + WITH_TINY)
        assert done.returncode == 0, done.stderr
        if command[0] == "compile":
            shutil.rmtree(spawner.folder / "built")


def runs(board: VirtualBoard) -> bool:
    """Whether a program of ours does, and not only a shell."""
    return "levit-deploy" in board.shell("ls -l /proc/*/exe 2>/dev/null || true")
