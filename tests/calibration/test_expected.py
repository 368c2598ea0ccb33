"""Quantizing without a picture: trained nets keep their answers, with outlier channels too."""

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.calibration.expected import expected_statistics
from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.quantize_model import quantize_from_moments
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.calibration.statistics import collect_statistics
from levit_deploy.export.export_model import export_model
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.images import model_input
from levit_deploy.network.moments import trained_moments
from tests.calibration.running import run, signal_to_noise_db
from tests.outlier_channels import with_outlier_channels


def test_real_images_lie_in_the_expected_ranges(tiny: Checkpoint):
    """Of every tensor that a layer reads, on training images."""
    exported = export_model(tiny.build(), name="tiny", weights_digest=tiny.digest)
    pictures = open_images("demo", tiny.preprocessing, exported.image_size, maximum=64)
    seen = collect_statistics(exported, pictures)
    expected = expected_statistics(exported.network, trained_moments(tiny.build()))
    assert expected.keys() >= seen.keys()
    for name, real in seen.items():
        range_used = real.largest.max() / expected[name].largest.max()
        assert 0.2 < range_used < 1.5, name
        off = np.abs(real.sample.mean(axis=0) - expected[name].sample.mean(axis=0))
        assert np.median(off / expected[name].sample.std(axis=0)) < 0.5, name


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_the_tiny_net_keeps_its_answers(sigma: float, tiny: Checkpoint, data_dir: Path):
    net = with_outlier_channels(tiny.build(), sigma, seed=0)
    exported = export_model(net, name="tiny", weights_digest=tiny.digest)
    quantized, table = quantize_from_moments(exported, trained_moments(net), DEFAULT_RECIPE)
    assert table.images is None
    with np.load(data_dir / "val_2000.npz") as val:
        images = model_input(val["images"][:500], tiny.spec)
    expected, got = (
        run(model.graph, images, ["logits"])["logits"] for model in (exported, quantized)
    )
    assert signal_to_noise_db(expected, got) > 31
    assert np.mean(expected.argmax(axis=1) == got.argmax(axis=1)) >= 0.97
