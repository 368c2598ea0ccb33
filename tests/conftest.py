"""What every room's tests share: where the data is, and a LeViT small enough to run everywhere."""

import fcntl
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests import machine
from tests.randomize import randomize

# Their fixtures are made once for all rooms.
pytest_plugins = ["tests.deployment", "tests.boards.sshd"]

# The nets are small: more threads only wait for each other, above all beside other test workers.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that the tests start

# What a shell runs in the background ignores Ctrl-C, and so would all that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-architecture",
        action="store_true",
        help="fail if code of an architecture that can run here was never run",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """A worker of pytest-xdist has ended: what it ran counts here."""
    machine.executions.update(getattr(node, "workeroutput", {}).get("executions", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        counts = {arch.value: count for arch, count in machine.executions.items()}
        session.config.workeroutput["executions"] = counts
    elif (
        session.exitstatus == 0 and session.config.option.every_architecture and machine.never_run()
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Which architectures ran, and why tests were skipped."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
    )
    terminalreporter.section("what ran")
    for arch, count in sorted(machine.executions.items()):
        terminalreporter.write_line(f"{arch}: {count} times")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")
    if config.option.every_architecture:
        for arch in machine.never_run():
            terminalreporter.write_line(f"FAILED: no code of {arch} was run", red=True)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)`: a copy of the folder that `make` filled, in one of the test workers."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / f"once-{name}"
        with (root / f"{folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                (work := root / f"{folder.name}.part").mkdir()
                make(work)
                work.rename(folder)
        return shutil.copytree(folder, tmp_path_factory.mktemp(name), dirs_exist_ok=True)

    return made


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """tests/data: tiny trained LeViT, 2000 labelled test images, reference logits of both nets."""
    return Path(__file__).parent / "data"


@pytest.fixture
def random_tiny() -> Levit:
    """The tiny LeViT with every weight, bias and statistic randomised."""
    return randomize(Levit(TINY), seed=0)


@pytest.fixture
def trained_tiny(data_dir: Path) -> Levit:
    """The tiny LeViT as trained on CIFAR-10; its last stage has one token, so q and k are idle."""
    state = torch.load(data_dir / "levit_tiny_cifar10.pth", weights_only=True)["model"]
    module = Levit(TINY)
    module.load_state_dict(state)
    return module
