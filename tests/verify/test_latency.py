"""Timing: that contenders run and take turns, never how long they take."""

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.program import Entry
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.machines.local import LocalMachine
from levit_deploy.models.reference import Levit
from levit_deploy.runtime.manifest import KernelRecord
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.kernel_profile import _kernel_time, measure_peak_gflops
from levit_deploy.verify.latency import Contender, measure
from levit_deploy.verify.peer import Peer


@pytest.fixture
def onnx_file(random_tiny: Levit, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    export_model(random_tiny, name="tiny", weights_digest="0" * 64).save(path)
    return path


def test_contenders_take_turns_and_keep_their_order(onnx_file: Path) -> None:
    names = ("first", "second")
    contenders = [Contender(name, Peer.ONNXRUNTIME, onnx_file, 1, 64) for name in names]
    rounds = []
    latencies = measure(contenders, 3, rounds.append)
    assert rounds == [1, 2, 3]
    assert tuple(latency.name for latency in latencies) == names
    for latency in latencies:
        assert latency.images > 3  # a turn is many images of so small a net
        assert 0 < latency.min_wall_us <= latency.median_wall_us
        assert 0 < latency.min_cpu_us <= latency.median_cpu_us


def test_a_contender_that_cannot_load_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(DeployError, match="`loser` could not be timed"):
        measure([Contender("loser", Peer.ONNXRUNTIME, broken, 1, 64)], 1)


def test_the_peak_is_that_of_vectors() -> None:
    # No vector unit of the last fifteen years does less than one multiply-add a cycle at 1 GHz.
    assert measure_peak_gflops(find_toolchain(get_target("host")), LocalMachine()) > 8


def test_a_kernel_at_the_peak_has_share_one() -> None:
    call = KernelRecord("s", Entry.BOTH, "gemm", "4x4x4", "1x1", 1, 64, 192)
    timed = _kernel_time(call, ns=16, peak_gflops=8.0)
    assert np.isclose(timed.gflops, 8.0)
    assert np.isclose(timed.share_of_peak, 1.0)
