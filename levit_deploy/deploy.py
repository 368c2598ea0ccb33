"""The whole way: trained weights, or a model made of them -> an artifact held against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.calibration.image_set import ImageSet, Progress
from levit_deploy.calibration.quantize_model import quantize_from_moments, quantize_model
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.compile_log import format_calls
from levit_deploy.compiler.levels import compile_levels
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.compiler.tiles.table import packaged_tiles
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import PROBE_IMAGES, export_checkpoint, with_half
from levit_deploy.export.exported import ExportedModel
from levit_deploy.half_format import HalfFormat
from levit_deploy.machines.machine import Machine
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.network.moments import trained_moments
from levit_deploy.network.network import Precision
from levit_deploy.runtime.artifact import CALIBRATION_FILE, DEBUG_FOLDER, Artifact, Taps
from levit_deploy.runtime.build import build_artifact, build_debug
from levit_deploy.runtime.manifest import Provenance
from levit_deploy.runtime.signature import Signer
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.expectation import Reference
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
    """What makes a model 8 bits: pictures, or None for what its BatchNorms know, and a recipe."""

    images: ImageSet | None
    recipe: Recipe


def deploy(
    source: Checkpoint | ExportedModel,
    toolchain: Toolchain,
    parent: Path,
    *,
    name: str | None = None,
    tiles: Path | None = None,
    calibration: Calibration | None = None,
    half: HalfFormat | None = None,
    debug_taps: bool = False,
    dump_ir: Path | None = None,
    signer: Signer | None = None,
    command_line: Iterable[str] = (),
    provenance: Provenance | None = None,
    board: Machine | None = None,
    on_phase: Callable[[str, str], None] = lambda phase, detail: None,
) -> Deployment:
    """Compile for the target of `toolchain`; put the artifact into `parent` if it is right.

    `source`: the weights, or an exported model, which is compiled as it is and held against ONNX
    Runtime. `name`: the library's (default: the model's, with its precision unless that is fp32).
    `calibration`: how to quantize weights, if not None. `half`: the floats of 16 bits to round them
    to. `tiles`: a file whose tiles go before those of the package.
    `debug_taps`: add the debug build. `dump_ir`: a folder that gets each compiler phase's result
    and the compile log. `signer`: what signs the artifact. The manifest keeps `command_line` and
    `provenance`. `board`: what runs it, if not this machine. `on_phase` is told of each step, as
    (phase, detail), before it is made.
    An artifact that this machine cannot execute is put in place, and its verification says so.
    Raises DeployError if anything fails; then `parent` is as it was.
    """
    table = packaged_tiles(*[tiles] if tiles else [])
    calibration_table = None
    images = calibration.images if calibration else None
    if isinstance(source, ExportedModel):
        model, reference = source, Reference.of_model(source)
    else:
        if images:
            _require_same_preprocessing(source, images)
        on_phase("export", "")
        model = export_checkpoint(source, images.first(PROBE_IMAGES) if images else None)
        if calibration:
            on_phase("calibrate", "")
            model, calibration_table = calibrate(
                source,
                model,
                calibration,
                lambda done, total: on_phase("calibrate", f"{done} of {total} images"),
            )
        elif half:
            model = with_half(model, half)
        reference = Reference.of_weights(source, model if calibration or half else None)

    on_phase("compile", "")
    program = (compile_levels if toolchain.target.levels else compile_model)(
        model,
        toolchain.target,
        tiles=table,
        dump_ir=dump_ir,
        on_phase=lambda detail: on_phase("compile", detail),
        name=name or library_name(model.name, model.precision),
    )

    if dump_ir:
        (dump_ir / "compile_log.txt").write_text(format_calls(program))

    on_phase("link", "")
    verifications = []

    def check(artifact: Artifact) -> None:
        on_phase("verify", "")
        verification = verify_artifact(
            artifact,
            reference,
            pictures=images,
            board=board,
            on_check=lambda detail: on_phase("verify", detail),
        )
        verification.save(artifact.folder)
        verifications.append(verification)
        _refuse_wrong(verification)
        if signer:
            signer.sign(artifact.folder)

    def add_files(folder: Path) -> None:
        if calibration_table:
            calibration_table.save(folder / CALIBRATION_FILE)
            if not program.levels:
                Taps.of(program, toolchain.target.system).save(folder)
        if debug_taps:
            on_phase("link", "debug build")
            build_debug(program, toolchain, self_test, folder / DEBUG_FOLDER)

    self_test = reference_self_test(reference)
    artifact = build_artifact(
        program,
        toolchain,
        self_test,
        parent,
        command_line=command_line,
        provenance=provenance,
        add_files=add_files,
        check=check,
    )
    return Deployment(program, artifact, verifications[0])


def calibrate(
    checkpoint: Checkpoint, exported: ExportedModel, calibration: Calibration, progress: Progress
) -> tuple[ExportedModel, CalibrationTable]:
    """The 8-bit form of a checkpoint's float32 model, and the table behind it.

    `progress` counts images. Raises DeployError as `quantize_model` and `trained_moments` do.
    """
    if calibration.images is None:
        moments = trained_moments(checkpoint.build())
        return quantize_from_moments(exported, moments, calibration.recipe)
    return quantize_model(exported, calibration.images, calibration.recipe, progress)


def library_name(model: str, precision: str) -> str:
    """What the library of a model is called by default."""
    return model if precision == Precision.FP32 else f"{model}_{precision}"


def _require_same_preprocessing(checkpoint: Checkpoint, images: ImageSet) -> None:
    way = checkpoint.preprocessing.describe(checkpoint.spec.image_size)
    if images.preprocessing != way:
        raise ValueError(f"pictures by `{images.preprocessing}` for a model of `{way}`")


def _refuse_wrong(verification: Verification) -> None:
    for check in verification.checks:
        if check.outcome is Outcome.FAILED:
            raise DeployError(
                f"the library made for `{verification.target}` is wrong: "
                f"{check.what}: {check.detail}",
                hint="look at each phase with --dump-ir DIR, and report it with the output of "
                "`levit-deploy doctor`",
            )
