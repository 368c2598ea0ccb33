"""The whole way: trained weights -> an artifact that has been held against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.compiler.compile_log import format_calls
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.compiler.tuning.tile_table import packaged_tiles
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import CALIBRATION_FILE, DEBUG_FOLDER, Artifact
from levit_deploy.runtime.build import build_artifact, build_debug
from levit_deploy.runtime.debug_build import Taps
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.report import Outcome, Verification
from levit_deploy.verify.verification import reference_self_test, verify_artifact


@dataclass(frozen=True)
class Deployment:
    """`program`: what the compiler made of the model, for its log."""

    program: Program
    artifact: Artifact
    verification: Verification


@dataclass(frozen=True)
class Calibration:
    """What makes a model 8 bits: pictures, and how to use them."""

    images: ImageSet
    recipe: Recipe


def deploy(
    checkpoint: Checkpoint,
    toolchain: Toolchain,
    parent: Path,
    *,
    name: str | None = None,
    tiles: Path | None = None,
    calibration: Calibration | None = None,
    debug_taps: bool = False,
    dump_ir: Path | None = None,
    command_line: Iterable[str] = (),
    on_phase: Callable[[str, str], None] = lambda phase, detail: None,
) -> Deployment:
    """Compile for the target of `toolchain`; put the artifact into `parent` if it is right.

    `name`: the library's (default: the model's, with `_int8` if it is). `calibration`: how to
    quantize it, if not None. `tiles`: a file whose tiles go before those of the package.
    `debug_taps`: add the debug build. `dump_ir`: a folder that gets each compiler phase's result
    and the compile log. `on_phase` is told of each step, as (phase, detail), before it is made.
    An artifact that this machine cannot execute is put in place, and its verification says so.
    Raises DeployError if anything fails; then `parent` is as it was.
    """
    table = packaged_tiles(*[tiles] if tiles else [])
    on_phase("export", "")
    model = checkpoint.spec.name
    exported = export_model(checkpoint.build(), name=model, weights_digest=checkpoint.digest)
    quantized, calibration_table = None, None
    if calibration:
        on_phase("calibrate", "")
        quantized, calibration_table = quantize_model(
            exported,
            calibration.images,
            calibration.recipe,
            lambda done, total: on_phase("calibrate", f"{done} of {total} images"),
        )
        name = name or f"{model}_{quantized.precision}"

    on_phase("compile", "")
    program = compile_model(
        quantized or exported,
        toolchain.target,
        tiles=table,
        dump_ir=dump_ir,
        on_phase=lambda detail: on_phase("compile", detail),
        name=name or model,
    )

    if dump_ir:
        (dump_ir / "compile_log.txt").write_text(format_calls(program))

    on_phase("link", "")
    verifications = []

    def check(artifact: Artifact) -> None:
        on_phase("verify", "")
        verification = verify_artifact(
            artifact,
            checkpoint,
            quantized=quantized,
            on_check=lambda detail: on_phase("verify", detail),
        )
        verification.save(artifact.folder)
        verifications.append(verification)
        _refuse_wrong(verification)

    def add_files(folder: Path) -> None:
        if calibration_table:
            calibration_table.save(folder / CALIBRATION_FILE)
            Taps.of(program).save(folder)
        if debug_taps:
            on_phase("link", "debug build")
            build_debug(program, toolchain, self_test, folder / DEBUG_FOLDER)

    self_test = reference_self_test(checkpoint, quantized)
    artifact = build_artifact(
        program,
        toolchain,
        self_test,
        parent,
        command_line=command_line,
        add_files=add_files,
        check=check,
    )
    return Deployment(program, artifact, verifications[0])


def _refuse_wrong(verification: Verification) -> None:
    for check in verification.checks:
        if check.outcome is Outcome.FAILED:
            raise DeployError(
                f"the library made for `{verification.target}` is wrong: "
                f"{check.what}: {check.detail}",
                hint="look at each phase with --dump-ir DIR, and report it with the output of "
                "`levit-deploy doctor`",
            )
