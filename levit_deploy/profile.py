"""Compile an artifact's network once more, with a clock around each kernel, and time it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.export_model import export_model
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_profile_library
from levit_deploy.runtime.manifest import KernelRecord
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.contenders import random_network
from levit_deploy.verify.kernel_profile import KernelTime, measure_peak_gflops, profile_library


def profile_kernels(
    artifact: Artifact, work: Path, on_step: Callable[[str], None] = lambda detail: None
) -> list[KernelTime]:
    """The time of every kernel call of `artifact`'s network on this CPU, in order.

    The network is compiled anew into `work`, with weights of chance: time does not depend on them.
    Raises DeployError if it cannot be built, or not run here.
    """
    manifest = artifact.manifest
    network = random_network(artifact)
    exported = export_model(network, name=manifest.model, weights_digest="0" * 64)
    toolchain = find_toolchain(get_target(manifest.target))
    program = compile_model(exported, toolchain.target, name=manifest.name, on_phase=on_step)
    library = work / f"lib{manifest.name}.so"
    unused = SelfTest(logits=(0.0,) * manifest.classes, tolerance=0.0)
    build_profile_library(program, toolchain, unused, library)
    on_step("multiply-add peak")
    peak_gflops = measure_peak_gflops(toolchain, work)
    kernels = tuple(KernelRecord.of(call) for call in program.calls)
    return profile_library(
        library, kernels, peak_gflops, lambda done: on_step(f"run {done} of the profile build")
    )
