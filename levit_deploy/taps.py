"""Compile an 8-bit artifact's program once more, as a debug build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_debug
from levit_deploy.runtime.debug_build import DebugBuild
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Libc, find_toolchain
from levit_deploy.verify.model_of import quantized_model_of
from levit_deploy.verify.verification import reference_self_test


def build_taps(
    artifact: Artifact,
    checkpoint: Checkpoint,
    folder: Path,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> DebugBuild:
    """Make the debug build of `artifact` in `folder`, which must not exist.

    From the weights and the artifact's calibration table; `on_phase` is told of each step.
    Raises DeployError if the artifact has no table, or if what becomes of it is another program
    than the artifact's: by another version, on another machine (target `host`), with other tiles.
    """
    manifest = artifact.manifest
    on_phase("quantize")
    quantized = quantized_model_of(artifact, checkpoint)
    if quantized is None:
        raise DeployError(
            f"`{artifact.folder}` has no calibration table",
            hint="compile it again with --precision int8 --data demo",
        )
    toolchain = find_toolchain(get_target(manifest.target), Libc.parse(manifest.libc))
    program = compile_model(quantized, toolchain.target, name=manifest.name, on_phase=on_phase)
    if program.digest != manifest.program_digest:
        raise DeployError(
            f"weights and calibration table of `{artifact.folder}` do not make its program again",
            hint="compile it again with --debug-taps",
        )
    on_phase("link")
    return build_debug(program, toolchain, reference_self_test(checkpoint, quantized), folder)
