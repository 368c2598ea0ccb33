"""Time each kernel of an artifact on this CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levit_deploy.machines.open import machine_for
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.instrument import build_profile_library
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.kernel_profile import (
    KernelTime,
    measure_peak_gflops,
    profile_library,
    require_one_cpu,
)


def profile_kernels(
    artifact: Artifact, work: Path, on_step: Callable[[str], None] = lambda detail: None
) -> list[KernelTime]:
    """The time of every kernel call of `artifact` on this CPU, in order; files go into `work`.

    Raises DeployError if it is for several CPUs, cannot be linked, or not run here.
    """
    manifest = artifact.manifest
    require_one_cpu(artifact)
    toolchain = find_toolchain(manifest.device)
    library = work / artifact.shared_library.name
    on_step("link")
    build_profile_library(artifact, toolchain, library)
    on_step("multiply-add peak")
    peak_gflops = measure_peak_gflops(toolchain, machine_for(manifest.device))
    return profile_library(
        library,
        manifest.kernels,
        peak_gflops,
        lambda done: on_step(f"run {done} of the profile build"),
    )
