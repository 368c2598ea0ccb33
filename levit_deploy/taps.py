"""The debug build of an 8-bit artifact, made when it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime import instrument
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.debug_build import DebugBuild
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.verification import check_weights


def build_taps(
    artifact: Artifact,
    checkpoint: Checkpoint,
    folder: Path,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> DebugBuild:
    """`instrument.build_taps` with this machine's tools; `on_phase` is told of each step.

    Raises DeployError as it does, and if the artifact was compiled from other weights.
    """
    check_weights(artifact, checkpoint)
    on_phase("debug build")
    toolchain = find_toolchain(get_target(artifact.manifest.base_target))
    return instrument.build_taps(artifact, toolchain, folder)
