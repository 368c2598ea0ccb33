"""Commands that make things: export, compile, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import (
    AUTO,
    artifact_argument,
    data_option,
    json_option,
    libc_option,
    model_or_file_argument,
    name_option,
    on_option,
    optional_model_argument,
    os_option,
    recipe_option,
    skip_broken_option,
    target_or_auto_option,
)
from levit_deploy.commands.output import bytes_text, print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.quantize import NO_PICTURES, open_calibration
from levit_deploy.commands.remembered import recall
from levit_deploy.commands.results import artifact_json, print_files, print_verification
from levit_deploy.commands.settings import load_source, reach, say_what_runs, show_settings
from levit_deploy.commands.sign import open_signer, public_key_option, sign_option
from levit_deploy.commands.weights import (
    OPTION_NAMES,
    WeightsChoice,
    artifact_weights_options,
    output_option,
    size_option,
    weights_options,
)
from levit_deploy.errors import DeployError
from levit_deploy.files import check_writable
from levit_deploy.half_format import HalfFormat

if TYPE_CHECKING:
    from levit_deploy.calibration.recipe import Recipe
    from levit_deploy.deploy import Calibration
    from levit_deploy.machines.machine import Machine
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.models.spec import ModelSpec
    from levit_deploy.runtime.manifest import Provenance
    from levit_deploy.targets.system import System
    from levit_deploy.targets.target import Target
    from levit_deploy.verify.report import Verification

_TYPED = click.core.ParameterSource.COMMANDLINE


@click.command("export")
@optional_model_argument
@weights_options
@size_option
@output_option(
    type=click.Path(dir_okay=False, path_type=Path),
    help="The ONNX file to write.  [default: MODEL.onnx]",
)
@json_option
def export_command(
    spec: ModelSpec | None,
    choice: WeightsChoice,
    size: int | None,
    features: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL as an ONNX file for any runtime.

    BatchNorm is folded and the graph simplified; it was compared with the PyTorch reference.

    \b
    Examples:
      levit-deploy export levit_128s --weights demo -o levit_128s.onnx
      levit-deploy export levit_256 --weights checkpoint.safetensors
    """
    if output:
        check_writable(output)  # what cannot work is told of before the long work
    with Phases() as phases:
        checkpoint = choice.load(phases, spec, features=features, size=size)
        path = output or Path(f"{checkpoint.spec.name}.onnx")
        check_writable(path)
        show_settings(phases, checkpoint, {"output": str(path)})
        phases.begin("export")
        from levit_deploy.export.export_model import export_checkpoint

        export_checkpoint(checkpoint).save(path)
    size_bytes = path.stat().st_size
    if as_json:
        print_json({"path": str(path), "bytes": size_bytes, "weights_digest": checkpoint.digest})
    else:
        click.echo(f"{path}  {bytes_text(size_bytes)}")


@click.command("compile")
@model_or_file_argument
@target_or_auto_option
@on_option("Verify it on this board; with `--target auto` it is asked what it is")
@weights_options
@size_option
@output_option(
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets the artifact's folder.  [default: here]",
)
@name_option
@os_option
@libc_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="The arithmetic of the library. fp16 and bf16 halve it and need no pictures; int8 is best "
    "with --data.",
)
@data_option
@recipe_option
@skip_broken_option
@click.option(
    "--tiles",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that `levit-deploy tune` wrote: how kernels are cut.",
)
@click.option(
    "--debug-taps",
    is_flag=True,
    help="Add the folder debug/: the same program in libraries that show its 8-bit tensors.",
)
@click.option(
    "--dump-ir",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that gets each compiler phase's result as text.",
)
@sign_option
@json_option
@click.pass_obj
def compile_command(
    command_line: tuple[str, ...],
    model: ModelSpec | Path | None,
    target: Target | str,
    board: Machine | None,
    choice: WeightsChoice,
    size: int | None,
    features: bool,
    output: Path | None,
    name: str | None,
    os: str,
    libc: System | None,
    precision: str,
    tiles: Path | None,
    data: str | None,
    recipe: Recipe,
    skip_broken: bool,
    debug_taps: bool,
    dump_ir: Path | None,
    secret_key: Path | None,
    as_json: bool,
) -> None:
    """Compile MODEL into a C library for one CPU.

    MODEL is a variant, whose weights are named by --weights, or a file that `levit-deploy export`
    or `quantize` wrote, in its own precision. Without MODEL the weights say what they are of.

    The library is run on real images and compared with PyTorch (other precisions than fp32, and
    files: with ONNX Runtime on the same model) before it is handed over.

    The artifact is the folder NAME-TARGET-PRECISION: shared and static library, header,
    manifest.json and verify.json, for int8 also calibration.json, every decision behind it, and
    taps.json. It appears when all is done, or not at all.

    \b
    Examples:
      levit-deploy compile --target host levit_128s --weights demo -o build/
      levit-deploy compile --target rpi4 --libc glibc-2.31 --weights folder/
      levit-deploy compile --target arm64-dotprod levit_256 --precision int8
      levit-deploy compile --target rpi5 --weights folder/ --precision int8 --data photos/
      levit-deploy compile --target rpi5 levit_128s --weights demo --precision fp16
      levit-deploy compile --target rpi4 levit_128s_int8.onnx -o build/
      levit-deploy compile --target auto --on ssh://pi@raspberrypi.local levit_128s --weights demo
    """
    target = _target_on(board, target, os, libc)
    parent = output or Path()
    source: ExportedModel | Checkpoint | None = None
    checkpoint: Checkpoint | None = None
    if isinstance(model, Path):
        _check_no_weights_options()
        from levit_deploy.export.exported import ExportedModel

        source = ExportedModel.load(model)
        precision = source.precision.value
    else:
        _check_calibration_options(precision)
    from levit_deploy.runtime.artifact import folder_name
    from levit_deploy.runtime.publish import check_destination
    from levit_deploy.targets.toolchain import find_toolchain

    def check(model_name: str) -> Path:
        destination = parent / folder_name(
            name or model_name, target.name, precision, target.system.os
        )
        check_destination(destination)
        return destination

    if known := source or model:
        check(known.name)  # what cannot work is told of before the long work
    if debug_taps and target.levels:
        raise DeployError(
            "a debug build shows the tensors of one CPU's code",
            hint=f"compile for one: --target {target.levels[0].name}",
        )
    signer = open_signer(secret_key) if secret_key else None
    toolchain = find_toolchain(target)
    with Phases() as phases:
        if not isinstance(model, Path):
            source = checkpoint = choice.load(phases, model, features=features, size=size)
        assert source is not None
        destination = check(source.name)
        show_settings(
            phases,
            source,
            {
                "target": f"{target.name} ({target.base})" if target.base else target.name,
                **_precision(target, model, precision, recipe, data),
                "system": str(target.system),
                "linker": toolchain.version,
                "output": str(destination),
            },
        )
        calibration = None
        if checkpoint and precision == "int8":
            calibration = open_calibration(phases, checkpoint, data, recipe, skip_broken)
        phases.begin("compile" if isinstance(model, Path) else "export")
        from levit_deploy.compiler.compile_log import format_summary
        from levit_deploy.deploy import deploy

        deployment = deploy(
            source,
            toolchain,
            parent,
            name=name,
            tiles=tiles,
            calibration=calibration,
            half=HalfFormat(precision) if checkpoint and precision in list(HalfFormat) else None,
            debug_taps=debug_taps,
            dump_ir=dump_ir,
            signer=signer,
            command_line=command_line,
            provenance=_provenance(model, choice, data, calibration),
            board=board,
            on_phase=phases.show,
        )
    click.echo(format_summary(deployment.program), err=True)
    _warn_if_not_executed(deployment.verification)
    if as_json:
        print_json(artifact_json(deployment.artifact, deployment.verification))
        return
    print_files(deployment.artifact)
    print_verification(deployment.verification)


@click.command("verify")
@artifact_argument
@artifact_weights_options
@click.option(
    "--images",
    type=click.IntRange(1, 500),
    help="How many test images to classify.  [default: 16, or 2 under an emulator]",
)
@on_option("Run it on this board")
@public_key_option
@json_option
def verify_command(
    folder: Path,
    choice: WeightsChoice,
    images: int | None,
    board: Machine | None,
    public_key: Path | None,
    as_json: bool,
) -> None:
    """Compare the artifact in DIR with its reference.

    That is PyTorch with the weights, or the model in a .onnx file; where none are named, those that
    DIR was compiled from, if they are still there. Every entry point classifies
    real images, under an emulator where this CPU cannot, or on the board of --on.

    Writes verify.json into DIR, if that can be written; exits with 1 if the artifact is wrong.

    This executes the library in DIR, which can do all that you can do: know where it is from. What
    DIR's manifest and the library itself say must agree before more of it is run.

    \b
    Examples:
      levit-deploy verify build/levit_128s-arm64-fp32
      levit-deploy verify build/levit_128s-host-fp32 --weights demo --images 500
      levit-deploy verify build/levit_128s-rpi4-int8 --weights levit_128s_int8.onnx
      levit-deploy verify build/levit_128s-rpi4-int8 --public-key levit.pub
      levit-deploy verify build/levit_128s-rpi4-int8 --on ssh://pi@raspberrypi.local
    """
    from levit_deploy.runtime.artifact import open_artifact

    with Phases() as phases, open_artifact(folder) as artifact:
        if public_key:
            from levit_deploy.runtime.signature import check_signature

            check_signature(artifact, public_key)
        choice, _ = recall(phases, choice, artifact)
        say_what_runs(phases, artifact)
        if board is not None:
            reach(phases, board, artifact.manifest)
        source = load_source(phases, choice, artifact.manifest)
        phases.begin("verify")
        from levit_deploy.verify.model_of import reference_of
        from levit_deploy.verify.verification import verify_artifact

        verification = verify_artifact(
            artifact,
            reference_of(artifact, source),
            images=images,
            board=board,
            on_check=phases.detail,
        )
    _warn_if_not_executed(verification)
    if as_json:
        print_json(verification)
    else:
        print_verification(verification)
    if not artifact.is_in_place():
        raise DeployError(
            f"`{folder}` was compiled anew while it was verified",
            hint="verify it again: levit-deploy verify",
        )
    try:
        verification.save(folder)
    except DeployError as error:
        click.echo(f"warning: this is not kept in the folder: {error.message}", err=True)
    if not verification:
        raise click.exceptions.Exit(1)


def _target_on(board: Machine | None, target: Target | str, os: str, libc: System | None) -> Target:
    """`target`, or AUTO for what the board is, under the system that the options or the board say.

    Raises DeployError if the board cannot be used, or does not run code for it.
    """
    from levit_deploy.targets.system import System
    from levit_deploy.targets.target import Target

    if board is None:
        if not isinstance(target, Target):
            raise click.UsageError(f"--target {AUTO} asks a board: name it with --on")
        return target.on(System.of(os, libc))
    from levit_deploy.machines.compile_for import other_libc, target_with_caches
    from levit_deploy.machines.facts import read_facts
    from levit_deploy.machines.open import machine_for

    with Phases() as phases:
        reach(phases, board)
        facts = read_facts(board)
        chosen = target if isinstance(target, Target) else target_with_caches(facts)
        system = System.of(os, libc or other_libc(facts))
        phases.note(f"{board.name} is {facts.board or facts.system}: {chosen.name}, {system}")
        machine_for(chosen, board)
    return chosen.on(system)


def _provenance(
    model: ModelSpec | Path | None,
    choice: WeightsChoice,
    data: str | None,
    calibration: Calibration | None,
) -> Provenance:
    """Of a compiled file it is the file."""
    from levit_deploy.models.lasting_names import lasting_name
    from levit_deploy.runtime.manifest import Provenance

    weights = str(model) if isinstance(model, Path) else choice.weights
    assert weights is not None
    images = calibration.images if calibration else None
    return Provenance(
        weights=lasting_name(weights),
        key=choice.key,
        data=lasting_name(data) if data else None,
        data_digest=images.source_digest if images else None,
    )


def _precision(
    target: Target,
    model: ModelSpec | Path | None,
    precision: str,
    recipe: Recipe,
    data: str | None,
) -> dict[str, str]:
    """The arithmetic on the CPU of `target`, and for weights that become 8 bits how."""
    if precision in list(HalfFormat):
        arithmetic = any(precision in cpu.halves for cpu in target.levels or (target,))
        use = "multiplied where the CPU can" if arithmetic else "for storage: sums are float32"
        return {"precision": f"{precision}, {use}"}
    if precision != "int8" or isinstance(model, Path):
        return {"precision": precision}
    return {"precision": f"int8, {recipe.name}", "calibrated on": data or NO_PICTURES}


def _check_no_weights_options() -> None:
    """A file has its weights and its precision: nothing about them may be asked for."""
    given = click.get_current_context().get_parameter_source
    others = ("size", "precision", "data", "recipe", "skip_broken", "debug_taps")
    names = (*OPTION_NAMES, *others)
    for name in names:
        if given(name) is _TYPED:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} is for weights; a .onnx file is compiled as it is")


def _check_calibration_options(precision: str) -> None:
    """Without 8 bits nothing about them may be asked for."""
    given = click.get_current_context().get_parameter_source
    names = ("data", "recipe", "skip_broken", "debug_taps")
    options = [name for name in names if given(name) is _TYPED]
    if precision != "int8" and options:
        option = options[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for --precision int8, this is {precision}")


def _warn_if_not_executed(verification: Verification) -> None:
    if not verification.executed:
        click.echo("warning: the library was made, but not executed", err=True)
    if verification.hint:
        click.echo(f"\nhint: {verification.hint}", err=True)
