"""The kernels of an artifact, one by one: those that ship, in 8 bits too."""

from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.compiler.program import Entry
from levit_deploy.deploy import Deployment
from levit_deploy.errors import DeployError
from levit_deploy.profile import profile_kernels
from levit_deploy.runtime.artifact import Artifact


def test_every_kernel_of_the_float_entry_is_timed(host_artifact: Artifact, tmp_path: Path):
    expected = [k for k in host_artifact.manifest.kernels if k.entry != Entry.RGB8]
    times = profile_kernels(host_artifact, tmp_path)
    assert [(t.kind, t.shape, t.tile) for t in times] == [
        (k.kind, k.shape, k.tile) for k in expected
    ]
    assert all(time.min_us > 0 for time in times)


def test_kernels_for_several_cpus_are_not_timed(host_artifact: Artifact, tmp_path: Path):
    manifest = replace(host_artifact.manifest, levels=("x86-64-v3", "x86-64"))
    with pytest.raises(DeployError, match="kernels for several CPUs") as refused:
        profile_kernels(replace(host_artifact, manifest=manifest), tmp_path)
    assert refused.value.hint == "compile it for one: --target x86-64-v3"


def test_8_bit_kernels_are_those_of_the_artifact(int8_deployment: Deployment, tmp_path: Path):
    kinds = [time.kind for time in profile_kernels(int8_deployment.artifact, tmp_path)]
    assert kinds.count("gemm int8") == 23
