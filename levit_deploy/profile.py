"""Time each kernel of an artifact on this CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.instrument import build_profile_library
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.kernel_profile import KernelTime, measure_peak_gflops, profile_library


def profile_kernels(
    artifact: Artifact, work: Path, on_step: Callable[[str], None] = lambda detail: None
) -> list[KernelTime]:
    """The time of every kernel call of `artifact` on this CPU, in order; files go into `work`.

    Raises DeployError if it is for several CPUs, cannot be linked, or not run here.
    """
    manifest = artifact.manifest
    if manifest.levels:
        raise DeployError(
            f"`{artifact.name}` has kernels for several CPUs, which cannot be timed one by one",
            hint=f"compile it for one: --target {manifest.levels[0]}",
        )
    toolchain = find_toolchain(manifest.device)
    library = work / artifact.shared_library.name
    on_step("link")
    build_profile_library(artifact, toolchain, library)
    on_step("multiply-add peak")
    peak_gflops = measure_peak_gflops(toolchain, work)
    return profile_library(
        library,
        manifest.kernels,
        peak_gflops,
        lambda done: on_step(f"run {done} of the profile build"),
    )
