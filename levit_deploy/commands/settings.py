"""What commands that start from weights share: loading them, and saying what was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from levit_deploy.commands.output import columns
from levit_deploy.commands.progress import Phases

if TYPE_CHECKING:
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.models.spec import ModelSpec


def load_checkpoint(phases: Phases, spec: ModelSpec, weights: str, offline: bool) -> Checkpoint:
    phases.begin("weights")
    from levit_deploy.models.weights import load_weights

    return load_weights(spec, weights, offline=offline, progress=phases.amount)


def show_settings(phases: Phases, checkpoint: Checkpoint, settings: dict[str, str]) -> None:
    """What was decided, once, before the long work."""
    spec = checkpoint.spec
    rows = {
        "model": f"{spec.name}, {spec.image_size} px, {spec.classes} classes",
        "weights": f"{checkpoint.source} ({checkpoint.origin.value}, {checkpoint.digest[:12]})",
        **settings,
    }
    phases.note(columns(rows.items()))
