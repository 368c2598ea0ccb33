"""A child's crash, hang or failure is a report of ours."""

import sys
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import NotExecutedError, RunError
from levit_deploy.machines.process import run_child
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.latency import Contender, measure
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.library_worker import may_not_execute
from levit_deploy.verify.peer import Peer
from tests.planted_modules import plant_modules


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_works():
    assert run_child(python("print('hello')")) == "hello\n"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGKILL"])
def test_a_crash_is_named_by_its_signal(name):
    code = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    with pytest.raises(RunError, match=f"crashed with {name}"):
        run_child(python(code))


def test_a_failure_quotes_the_last_line():
    code = "import sys; print('noise', file=sys.stderr); sys.exit('no AVX2 here')"
    with pytest.raises(RunError, match="no AVX2 here"):
        run_child(python(code))


def test_a_silent_failure_gives_the_exit_code():
    with pytest.raises(RunError, match="exit code 3"):
        run_child(python("raise SystemExit(3)"))


def test_a_hang_is_ended():
    with pytest.raises(RunError, match="did not finish within 1 s"):
        run_child(python("import time; time.sleep(60)"), timeout_s=1)


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(NotExecutedError, match="could not be started"):
        run_child([tmp_path / "missing"])


def test_a_program_that_may_not_be_executed(tmp_path):
    """No bit for it, which is what a folder mounted noexec comes to."""
    program = tmp_path / "program"
    program.write_bytes(Path(sys.executable).read_bytes()[:4096])
    program.chmod(0o644)
    with pytest.raises(NotExecutedError, match="Permission denied"):
        run_child([program])


def test_a_forbidden_system_call_is_not_a_crash():
    """SIGSYS is what a seccomp filter ends a process with."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSYS)"
    with pytest.raises(NotExecutedError, match="forbidden here"):
        run_child(python(code))


def test_a_library_that_may_not_be_mapped():
    """What the C library says where a folder is mounted noexec, and what it says of damage."""
    for words, expected in (
        ("failed to map segment from shared object", True),
        ("liba.so: cannot change memory protections: Permission denied", True),
        ("undefined symbol: levit", False),
    ):
        error = DeployError("cannot load `liba.so`")
        error.__cause__ = OSError(words)
        assert may_not_execute(error) is expected


@pytest.mark.parametrize("variable", [None, "PYTHONPATH", "PYTHONHOME"])
def test_what_lies_around_is_not_imported(
    variable: str | None, host_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A worker loads a library while the current folder and the environment hold other modules."""
    told = plant_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    images = Images(
        np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 3, 64, 64), np.float32), "zero"
    )
    assert LibraryRunner(host_artifact, Function.RUN).infer(images).shape == (1, 10)
    (latency,) = measure([Contender("a", Peer.ARTIFACT, host_artifact.shared_library, 1, 64)], 1)
    assert latency.images
    assert not told.exists()
