"""The whole way: exported float model, images or moments -> 8-bit model and its table."""

from __future__ import annotations

from collections.abc import Mapping

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.expected import expected_statistics
from levit_deploy.calibration.image_set import ImageSet, Progress
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.export.exported import ExportedModel
from levit_deploy.network.moments import Moments


def quantize_model(
    exported: ExportedModel,
    images: ImageSet,
    recipe: Recipe,
    progress: Progress = lambda done, total: None,
) -> tuple[ExportedModel, CalibrationTable]:
    """Calibrate a float32 model on images and quantize it; progress counts images.

    Raises DeployError as `collect_statistics`, `choose_scales` and `quantize` do.
    """
    statistics = collect_statistics(exported, images, progress)
    table = choose_scales(exported, statistics, images, recipe)
    return quantize(exported, table), table


def quantize_from_moments(
    exported: ExportedModel, moments: Mapping[str, Moments], recipe: Recipe
) -> tuple[ExportedModel, CalibrationTable]:
    """Quantize a float32 model without a picture; `moments`: of `trained_moments` of its net.

    Raises DeployError as `choose_scales` and `quantize` do.
    """
    statistics = expected_statistics(exported.network, moments)
    table = choose_scales(exported, statistics, None, recipe)
    return quantize(exported, table), table
