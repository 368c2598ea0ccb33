"""What commands that start from weights share: loading them, and saying what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from levit_deploy.commands.output import columns
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.weights import WeightsChoice

if TYPE_CHECKING:
    from levit_deploy.export.exported import ExportedModel
    from levit_deploy.machines.machine import Machine
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.runtime.artifact import Artifact
    from levit_deploy.runtime.manifest import Manifest


def say_what_runs(phases: Phases, artifact: Artifact) -> None:
    """Before anything in an artifact's folder is executed."""
    phases.note(
        f"this runs the library in {artifact.folder}: it can do all that you can do; "
        "`levit-deploy inspect` runs nothing"
    )


def reach(phases: Phases, board: Machine, manifest: Manifest | None = None) -> None:
    """Connect to a board, and say what is to be known of it.

    Raises DeployError if it cannot be used, or not for the artifact of `manifest`.
    """
    from levit_deploy.machines.open import machine_for

    phases.begin("connect")
    board.cpu()
    for note in board.notes:
        phases.note(note)
    if manifest is not None:
        machine_for(manifest.device, board)


def load_for(phases: Phases, choice: WeightsChoice, manifest: Manifest) -> Checkpoint:
    """The weights that an artifact is said to be of, meant as it was compiled."""
    from levit_deploy.models.spec import FAMILY

    return choice.load(
        phases,
        FAMILY.get(manifest.model),
        features=manifest.card.heads == 0,
        size=manifest.image_size,
        card=manifest.card,
    )


def load_source(
    phases: Phases, choice: WeightsChoice, manifest: Manifest
) -> Checkpoint | ExportedModel:
    """The weights, or the model that `export` or `quantize` wrote."""
    from levit_deploy.export.exported import ExportedModel, is_exported

    file = Path(choice.weights or "")
    return ExportedModel.load(file) if is_exported(file) else load_for(phases, choice, manifest)


def show_settings(
    phases: Phases, source: Checkpoint | ExportedModel, settings: dict[str, str]
) -> None:
    """What was decided, once, before the long work."""
    from levit_deploy.models.checkpoint import Checkpoint

    card = {row: f"{value}  {where}" for row, value, where in source.card.rows()}
    if isinstance(source, Checkpoint):
        spec, digest = source.spec, source.digest
        name, size, classes = spec.name, spec.image_size, spec.classes
        weights = f"{source.source} ({source.origin.value}, {digest[:12]})"
        for note in source.notes:
            phases.note(note)
    else:
        name, size, classes = source.name, source.image_size, source.classes
        weights = f"in the model ({source.weights_digest[:12]})"
    model = f"{name}, {size} px, {f'{classes} classes' if classes else 'features'}"
    phases.note(columns({"model": model, "weights": weights, **card, **settings}.items()))
