"""The models that an artifact was compiled from, made again from its weights and its table."""

from __future__ import annotations

from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import Artifact


def float_model_of(checkpoint: Checkpoint) -> ExportedModel:
    """What the weights are compiled from in fp32."""
    return export_model(
        checkpoint.build(), name=checkpoint.spec.name, weights_digest=checkpoint.digest
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
    return None if table is None else quantize(float_model_of(checkpoint), table)
