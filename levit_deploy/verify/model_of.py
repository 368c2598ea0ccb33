"""What an artifact was compiled from, made again from its weights and its table."""

from __future__ import annotations

from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_checkpoint, with_half
from levit_deploy.export.exported import ExportedModel
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.expectation import Reference


def reference_of(artifact: Artifact, source: Checkpoint | ExportedModel) -> Reference:
    """What to hold `artifact` against, made of its weights or of the model it was compiled from.

    Raises DeployError if the weights are others than those that it was compiled from.
    """
    check_weights(artifact, source)
    if isinstance(source, ExportedModel):
        return Reference.of_model(source)
    return Reference.of_weights(source, _model_of(artifact, source))


def _model_of(artifact: Artifact, checkpoint: Checkpoint) -> ExportedModel | None:
    """The model of fewer bits that it was compiled from; None as `table_of`."""
    if artifact.manifest.precision in list(HalfFormat):
        return with_half(export_checkpoint(checkpoint), HalfFormat(artifact.manifest.precision))
    return quantized_model_of(artifact, checkpoint)


def check_weights(artifact: Artifact, source: Checkpoint | ExportedModel) -> None:
    """Raise DeployError if the artifact was compiled from others."""
    name, found = (
        (f"{source.name}.onnx", source.weights_digest)
        if isinstance(source, ExportedModel)
        else (source.source, source.digest)
    )
    digest = artifact.manifest.weights_digest
    if digest != found:
        raise DeployError(
            f"`{artifact.folder}` was compiled from weights `{digest[:12]}`, "
            f"those in `{name}` are `{found[:12]}`",
            hint="name the weights that it was compiled from: --weights FILE",
        )


def table_of(artifact: Artifact) -> CalibrationTable | None:
    """Every decision that made the artifact's 8-bit model; None if it is fp32 or has no table."""
    path = artifact.calibration_table
    return None if path is None else CalibrationTable.load(path)


def quantized_model_of(artifact: Artifact, checkpoint: Checkpoint) -> ExportedModel | None:
    """The 8-bit model that `artifact` was compiled from, the same bytes; None as in `table_of`.

    Raises DeployError if the weights are others than those that the table is for.
    """
    table = table_of(artifact)
    return None if table is None else quantize(export_checkpoint(checkpoint), table)
