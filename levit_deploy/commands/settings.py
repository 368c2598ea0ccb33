"""What commands that start from weights share: loading them, and saying what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from levit_deploy.commands.output import columns
from levit_deploy.commands.progress import Phases

if TYPE_CHECKING:
    from levit_deploy.export.exported import ExportedModel
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.models.spec import ModelSpec


def load_checkpoint(phases: Phases, spec: ModelSpec, weights: str, offline: bool) -> Checkpoint:
    phases.begin("weights")
    from levit_deploy.models.weights import load_weights

    return load_weights(spec, weights, offline=offline, progress=phases.amount)


def load_source(
    phases: Phases, spec: ModelSpec, weights: str, offline: bool
) -> Checkpoint | ExportedModel:
    """The weights, or the model in a .onnx file."""
    if not weights.endswith(".onnx"):
        return load_checkpoint(phases, spec, weights, offline)
    from levit_deploy.export.exported import ExportedModel

    return ExportedModel.load(Path(weights))


def show_settings(
    phases: Phases, source: Checkpoint | ExportedModel, settings: dict[str, str]
) -> None:
    """What was decided, once, before the long work."""
    from levit_deploy.models.checkpoint import Checkpoint

    if isinstance(source, Checkpoint):
        spec, digest = source.spec, source.digest
        name, size, classes = spec.name, spec.image_size, spec.classes
        weights = f"{source.source} ({source.origin.value}, {digest[:12]})"
    else:
        name, size, classes = source.name, source.image_size, source.classes
        weights = f"in the model ({source.weights_digest[:12]})"
    model = f"{name}, {size} px, {classes} classes"
    phases.note(columns({"model": model, "weights": weights, **settings}.items()))
