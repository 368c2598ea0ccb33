"""A few cases of every kind that `python -m benchmarks.fuzz` makes; the slow test makes many."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fuzz import KINDS, fuzz, make_case, run_case
from levit_deploy.deploy import Deployment


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["checkpoints", "onnx", "pictures", "artifacts", "audits"])
def test_a_few_cases(name: str, int8_deployment: Deployment, tmp_path: Path) -> None:
    sound, case, kind = tmp_path / "sound", tmp_path / "case", KINDS[name]
    sound.mkdir()
    if name == "artifacts":
        shutil.copytree(int8_deployment.artifact.folder, sound / "artifact")
    else:
        kind.make(sound)
    assert run_case(kind, sound) is None
    for number in range(100):
        make_case(kind, sound, case, number)
        assert run_case(kind, case) is None, number


# A quarter of what an idle core makes in a minute.
LEAST = {
    "checkpoints": 900,
    "json": 4000,
    "onnx": 5000,
    "pictures": 5000,
    "artifacts": 1200,
    "audits": 2500,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_minute(name: str) -> None:
    counts = fuzz(name, seconds=60, seed=0, keep=None, cases=10**9)
    assert counts["cases"] > LEAST[name]
    assert counts["failed"] == 0, counts
