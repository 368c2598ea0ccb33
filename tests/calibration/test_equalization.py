"""Equalization: nothing moves in float, and outlier channels cost nothing."""

import numpy as np
import pytest

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.factors import channel_factors
from levit_deploy.calibration.quantize import with_streams
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES
from levit_deploy.calibration.statistics import TensorStatistics
from levit_deploy.export.export_model import export_model
from levit_deploy.models.images import normalize
from levit_deploy.models.spec import TINY
from tests.calibration.running import run, signal_to_noise_db
from tests.outlier_channels import with_outlier_channels


@pytest.fixture(scope="module")
def images(pictures):
    rng = np.random.default_rng(5)
    size = pictures.image_size
    noise = rng.integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    return normalize(noise, TINY.normalization)


def logits(exported, images):
    return run(exported.graph, images, ["logits"])["logits"]


def test_equalized_streams_leave_the_float_network_the_same_to_the_bit(
    exported, statistics, pictures, images
):
    table = choose_scales(exported, statistics, pictures, DEFAULT_RECIPE)
    factors = np.concatenate([stream.factors for stream in table.streams])
    assert len(table.streams) == 3
    assert len(np.unique(factors)) > 1
    equalized = with_streams(exported, table)
    assert equalized != exported
    assert np.array_equal(logits(equalized, images), logits(exported, images))


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_an_outlier_channel_model_quantizes_as_the_network_itself(
    net, exported, pictures, images, sigma
):
    outliers = export_model(
        with_outlier_channels(net, sigma, seed=1), name="outliers", weights_digest="cd" * 32
    )
    reference = logits(exported, images)
    np.testing.assert_allclose(logits(outliers, images), reference, rtol=1e-3, atol=1e-3)

    itself = logits(quantize_model(exported, pictures, DEFAULT_RECIPE)[0], images)
    as_outliers = logits(quantize_model(outliers, pictures, DEFAULT_RECIPE)[0], images)
    loss = signal_to_noise_db(reference, itself) - signal_to_noise_db(reference, as_outliers)
    assert abs(loss) < 2  # weights are rounded to float32 elsewhere: other ties and errors


def test_outlier_channels_are_hard_to_quantize(net, pictures, images):
    """What the equalization is for: without it the model is lost, streams alone save most of it."""
    outliers = export_model(
        with_outlier_channels(net, 2.0, seed=1), name="outliers", weights_digest="cd" * 32
    )
    reference = logits(outliers, images)
    plain = logits(quantize_model(outliers, pictures, RECIPES["w8a8-plain"])[0], images)
    streams = logits(quantize_model(outliers, pictures, RECIPES["w8a8-streams"])[0], images)
    assert signal_to_noise_db(reference, plain) < 15
    assert signal_to_noise_db(reference, streams) > signal_to_noise_db(reference, plain) + 10


@pytest.fixture
def seen():
    sample = np.random.default_rng(0).normal(0, [1, 2, 4, 8, 16, 32], (256, 6))
    halves = sample.reshape(2, 128, 6)
    return TensorStatistics(2, halves.min(axis=1), halves.max(axis=1), sample.astype(np.float32))


@pytest.fixture
def reader():
    """Weights of a layer of 6 channels."""
    return np.random.default_rng(1).normal(0, 1, (12, 6))


def test_factors_follow_the_scale_of_the_channels(seen, reader):
    by = np.array([1e-3, 1.0, 50.0, 1e4, 7.0, 1e-6])
    rescaled = reader / by
    plain, other = channel_factors(seen, [reader]), channel_factors(seen.scaled(by), [rescaled])
    ratio = other * by / plain
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert np.exp(np.log(plain).mean()) == pytest.approx(1)


def test_factors_balance_activations_and_weights(seen, reader):
    """Ranges of both are closer together than before."""
    factors = channel_factors(seen, [reader])
    before, after = seen.largest, seen.largest * factors
    assert after.max() / after.min() < before.max() / before.min() / 3
    weight = np.abs(reader).max(axis=0) / factors
    assert weight.max() / weight.min() < before.max() / before.min()


def test_dead_channels_get_ordinary_factors(seen, reader):
    """Channel 0 was always zero, channel 1 is read by nobody, channel 2 is both."""
    zero, unread = np.array([0, 1, 0, 1, 1, 1]), np.array([1, 0, 0, 1, 1, 1])
    layer = reader * unread
    factors = channel_factors(seen.scaled(zero), [layer])
    assert np.isfinite(factors).all()
    weight = np.abs(layer).max(axis=0) / factors
    assert weight[3:].min() <= weight[0] <= weight[3:].max()
    x = seen.largest * factors
    assert x[3:].min() <= x[1] <= x[3:].max()
    assert factors[2] == 1


def test_factors_of_a_tensor_that_is_always_zero(seen, reader):
    nothing = seen.scaled(np.zeros(6))
    assert np.array_equal(channel_factors(nothing, [reader]), np.ones(6))
