"""A child's crash, hang or failure is a report of ours."""

import sys

import pytest

from levit_deploy.verify.process import run_child
from levit_deploy.verify.runner import RunError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_works():
    run_child(python("print('hello')"))


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
    with pytest.raises(RunError, match="could not be started"):
        run_child([tmp_path / "missing"])
