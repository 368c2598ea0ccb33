"""The kernels of an artifact, one by one: those that ship, in 8 bits too."""

from pathlib import Path

from levit_deploy.compiler.program import Entry
from levit_deploy.deploy import Deployment
from levit_deploy.profile import profile_kernels
from levit_deploy.runtime.artifact import Artifact


def test_every_kernel_of_the_float_entry_is_timed(host_artifact: Artifact, tmp_path: Path):
    expected = [k for k in host_artifact.manifest.kernels if k.entry != Entry.RGB8]
    times = profile_kernels(host_artifact, tmp_path)
    assert [(t.kind, t.shape, t.tile) for t in times] == [
        (k.kind, k.shape, k.tile) for k in expected
    ]
    assert all(time.min_us > 0 for time in times)


def test_8_bit_kernels_are_those_of_the_artifact(int8_deployment: Deployment, tmp_path: Path):
    kinds = [time.kind for time in profile_kernels(int8_deployment.artifact, tmp_path)]
    assert kinds.count("gemm int8") == 23
