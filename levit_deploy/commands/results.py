"""Artifacts and verifications, in words and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from levit_deploy.commands.output import bytes_text, print_columns, print_text
from levit_deploy.records import to_plain

if TYPE_CHECKING:
    from levit_deploy.runtime.artifact import Artifact
    from levit_deploy.verify.report import Verification


def artifact_json(artifact: Artifact, verification: Verification | None) -> dict[str, object]:
    """The folder, its manifest, and its verification (None if this build was never verified)."""
    return {
        "folder": str(artifact.folder),
        **to_plain(artifact.manifest),
        "verification": to_plain(verification),
    }


def print_files(artifact: Artifact) -> None:
    """The folder and its files."""
    click.echo(f"{artifact.folder}/")
    print_columns(
        (f"  {name}", bytes_text(record.bytes), f"sha256 {record.sha256[:16]}")
        for name, record in artifact.manifest.files.items()
    )


def print_manifest(artifact: Artifact) -> None:
    """What the manifest says, but for the files."""
    m = artifact.manifest
    code = ", ".join(m.levels) or m.base_target
    target = m.target if m.target == code else f"{m.target} ({code})"
    facts = {
        "model": f"{m.model}, {m.image_size} px, {m.classes} classes, {m.precision}",
        "target": f"{target}, {m.system}",
        "pictures": m.card.recipe,
        "licence": m.card.licence or "unknown",
        "labels": ", ".join(m.card.labels[:5]) + ", ..." * (len(m.card.labels) > 5) or "none",
        "assumed": ", ".join(m.card.assumed) or "nothing",
        "weights": m.weights_digest,
        "build": f"{m.build_id}, ABI version {m.abi_version}",
        "workspace": f"{bytes_text(m.workspace_bytes)} ({bytes_text(m.arena_bytes)} arena)",
        "constants": bytes_text(m.constants_bytes),
        "made by": ", ".join((m.toolchain, *(f"{k} {v}" for k, v in m.versions.items()))),
        "command": " ".join(m.command_line),
    }
    if m.provenance:
        p = m.provenance
        facts["made from"] = ", ".join(filter(None, (p.weights, p.key, p.data)))
    if m.audit:
        facts["audit"] = f"{m.audit.verdict.value}, sha256 {m.audit.sha256[:16]}"
    print_columns(facts.items())


def print_kernels(artifact: Artifact) -> None:
    """One line for each kernel call, in order."""
    from levit_deploy.compiler.compile_log import format_table

    print_text(format_table(artifact.manifest.kernels))


def print_verification(verification: Verification) -> None:
    """One line for each run, or why there was none."""
    if not verification.executed:
        reasons = "; ".join(check.detail for check in verification.checks)
        print_text(f"not executed: {reasons}")
        return
    print_text(f"checked against the {verification.reference} on {verification.images}:")
    if verification.assumed:
        print_text(f"  assumed, since nobody says: {', '.join(verification.assumed)}")
    for check in verification.checks:
        print_text(f"  {check.outcome.value}: {check.what}: {check.detail}")
