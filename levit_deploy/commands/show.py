"""Commands that only show: models, targets, doctor, inspect."""

from __future__ import annotations

from pathlib import Path

import click

from levit_deploy.commands.arguments import artifact_argument, json_option
from levit_deploy.commands.output import print_columns, print_json
from levit_deploy.commands.results import (
    artifact_json,
    print_files,
    print_kernels,
    print_manifest,
    print_verification,
)
from levit_deploy.errors import DeployError


@click.command("models")
@json_option
def models_command(as_json: bool) -> None:
    """List the LeViT variants.

    \b
    Example:
      levit-deploy models
    """
    from levit_deploy.models.catalogue import catalogue

    entries = catalogue()
    if as_json:
        print_json(
            [
                {
                    "name": entry.spec.name,
                    "channels": entry.spec.channels,
                    "depths": entry.spec.depths,
                    "heads": entry.spec.heads,
                    "key_dim": entry.spec.key_dim,
                    "image_size": entry.spec.image_size,
                    "classes": entry.spec.classes,
                    "parameters": entry.parameters,
                    "multiply_adds": entry.multiply_adds,
                    "paper_top1": entry.paper_top1,
                }
                for entry in entries
            ]
        )
        return
    rows = [("MODEL", "CHANNELS", "DEPTHS", "HEADS", "PARAMETERS", "MULTIPLY-ADDS", "TOP-1")]
    for entry in entries:
        spec = entry.spec
        rows.append(
            (
                spec.name,
                " ".join(map(str, spec.channels)),
                " ".join(map(str, spec.depths)),
                " ".join(map(str, spec.heads)),
                f"{entry.parameters / 1e6:.1f} M",
                f"{entry.multiply_adds / 1e6:.0f} M",
                f"{entry.paper_top1:.1f} %" if entry.paper_top1 else "-",
            )
        )
    print_columns(rows)
    click.echo("224 px, 1000 classes; top-1 on ImageNet as published", err=True)


@click.command("targets")
@json_option
def targets_command(as_json: bool) -> None:
    """List the CPUs and boards that can be compiled for.

    \b
    Example:
      levit-deploy targets
    """
    from levit_deploy.targets.table import HOST, TARGETS, get_target

    targets = list(TARGETS.values())
    try:
        targets.append(get_target(HOST))
    except DeployError as error:
        click.echo(f"no `{HOST}` here: {error.message}", err=True)
    if as_json:
        print_json(
            [
                {
                    "name": target.name,
                    "description": target.description,
                    "base": target.base,
                    "triple": target.triple,
                    "cpu": target.cpu,
                    "features": target.features,
                    "vector_bytes": target.vector_bytes,
                    "fma": target.fma,
                    "int8_dot": target.int8_dot.value,
                    "l1d_bytes": target.l1d_bytes,
                    "l2_bytes": target.l2_bytes,
                    "required_features": target.required_features,
                    "emulator": target.emulator.binary if target.emulator else None,
                }
                for target in targets
            ]
        )
        return
    rows = [("TARGET", "CODE", "VECTOR", "FMA", "INT8", "L1D", "L2", "DESCRIPTION")]
    for target in targets:
        rows.append(
            (
                target.name,
                target.base or target.name,
                f"{8 * target.vector_bytes} bit",
                "yes" if target.fma else "no",
                target.int8_dot.value,
                f"{target.l1d_bytes >> 10} KiB",
                f"{target.l2_bytes >> 10} KiB",
                target.description,
            )
        )
    print_columns(rows)


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Show what is installed, what is missing, what to type.

    Exits with 1 if something is missing without which nothing compiles.

    \b
    Example:
      levit-deploy doctor
    """
    from levit_deploy.targets.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json(
            [{"what": f.what, "ok": f.ok, "detail": f.detail, "hint": f.hint} for f in findings]
        )
    else:
        marks = {True: "ok", False: "no"}
        print_columns((marks[f.ok], f.what, f.detail) for f in findings)
        hints = [f.hint for f in findings if f.hint]
        if hints:
            click.echo("\nto type:")
            for hint in dict.fromkeys(hints):
                click.echo(f"  {hint}")
    if any(f.required and not f.ok for f in findings):
        raise click.exceptions.Exit(1)


@click.command("inspect")
@artifact_argument
@json_option
def inspect_command(folder: Path, as_json: bool) -> None:
    """Show what the artifact in DIR is, and how it was made.

    Files, sizes, weights, kernels, and what its verification found. Nothing in DIR is executed.

    \b
    Examples:
      levit-deploy inspect build/levit_128s-arm64-fp32
      levit-deploy inspect build/levit_128s-arm64-fp32 --json
    """
    from levit_deploy.runtime.artifact import Artifact
    from levit_deploy.verify.report import Verification

    artifact = Artifact.load(folder)
    verification = Verification.load(folder)
    verified = "never"
    if verification is not None:
        verified = verification.outcome.value
        if not verification.is_of(artifact.manifest):
            verification, verified = None, "another build"
    if as_json:
        print_json({**artifact_json(artifact, verification), "verified": verified})
        return
    print_files(artifact)
    click.echo()
    print_manifest(artifact)
    click.echo()
    print_kernels(artifact)
    click.echo()
    click.echo(f"verified: {verified}")
    if verification is not None:
        print_verification(verification)
