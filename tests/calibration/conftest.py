"""A tiny LeViT that is hard to quantize in every layer, and pictures to calibrate it on."""

import numpy as np
import pytest

from levit_deploy.calibration.image_set import ImageSet, open_images
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.randomize import randomize


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> ImageSet:
    """32 pictures of coloured noise in a .npz file, not of model size."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 40, 40, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("pictures") / "noise.npz"
    np.savez(file, images=images)
    return open_images(str(file), DEMO_PREPROCESSING, TINY.image_size)


@pytest.fixture(scope="session")
def net() -> Levit:
    return randomize(Levit(TINY), seed=3)


@pytest.fixture(scope="session")
def exported(net) -> ExportedModel:
    return export_model(net, name="levit_tiny", weights_digest="ab" * 32)


@pytest.fixture(scope="session")
def statistics(exported, pictures):
    return collect_statistics(exported, pictures)
